package iscsi

import (
	"context"

	"odx/target/scsi"
)

// DeviceServer is what the transport needs of the SCSI layer for one target.
// Its methods may be called concurrently, for the same nexus too.
type DeviceServer interface {
	// AttachWith opens an I_T nexus for a session that has just reached full
	// feature phase, with what its initiator may see; Detach ends it (I_T nexus
	// loss) after its last task ended. Where a task does not end, the initiator
	// port may attach again before.
	AttachWith(id scsi.NexusID, r scsi.Rights) *scsi.Nexus
	Detach(n *scsi.Nexus)

	// Prepare decodes a task and sets t.LU and t.Wanted. It must not block: it
	// runs on the connection's reader. done reports that the task ended there
	// (t.Result and t.Sense are set) and that Execute must not be called.
	Prepare(t *scsi.Task) (done bool)
	// Execute runs the task and sets t.Result, t.DataIn and t.Sense. A streamed
	// task is run again while there is more of it (scsi.Task.Streamed). When ctx
	// ends it returns as soon as it can; the caller then ignores the result.
	// Once ctx has ended the task must change nothing any more, even where it
	// returns late: the initiator may have been told that it is aborted, and
	// may have written the same blocks since. ctx is not valid after Execute
	// returned.
	Execute(ctx context.Context, t *scsi.Task)

	// HasLU reports whether lun names a logical unit that n can address.
	HasLU(n *scsi.Nexus, lun [8]byte) bool
	// ResetLU does what a LOGICAL UNIT RESET leaves to the device server
	// (reservations, unit attentions for every nexus) after the transport has
	// ended the tasks of that logical unit.
	ResetLU(n *scsi.Nexus, lun [8]byte)
	// TasksAborted tells the device server that tasks of other nexuses were
	// ended by n (CLEAR TASK SET), so that it can set unit attentions.
	TasksAborted(n *scsi.Nexus, lun [8]byte)
}
