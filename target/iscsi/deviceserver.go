package iscsi

import (
	"context"

	"odx/target/handover"
	"odx/target/scsi"
)

// DeviceServer is the SCSI layer of a target as the transport uses it. Its methods are
// safe for concurrent use, also for the same nexus.
type DeviceServer interface {
	// AttachWith creates the I_T nexus of a session that enters full feature phase, with
	// the rights of its initiator. Detach ends it (I_T nexus loss) after its last task has
	// ended. If a task does not end, the initiator port may attach again before that.
	AttachWith(id scsi.NexusID, r scsi.Rights) *scsi.Nexus
	Detach(n *scsi.Nexus)
	// Readmit gives an attached nexus other rights. It is not called concurrently for one
	// nexus, but possibly while commands of the nexus run.
	Readmit(n *scsi.Nexus, r scsi.Rights)
	// Suspend returns the state of a nexus that goes on in another process, with which
	// that attaches it by Continue. No task of the nexus runs, and it is not detached.
	Suspend(ctx context.Context, n *scsi.Nexus) handover.Nexus
	Continue(id scsi.NexusID, r scsi.Rights, state *handover.Nexus) *scsi.Nexus

	// Prepare decodes a task and sets t.LU and t.Wanted. It runs on the connection's
	// reader and must not block. done reports that the task has ended (t.Result and
	// t.Sense are set) and that Execute must not be called.
	Prepare(t *scsi.Task) (done bool)
	// Execute runs the task and sets t.Result, t.DataIn and t.Sense. It is called again
	// for a streamed task with further data (scsi.Task.Streamed). When ctx ends, Execute
	// returns as soon as it can, and the caller ignores the result. After ctx has ended
	// the task must not change anything, even if Execute returns later: the initiator
	// may have received the abort response and may have rewritten the blocks. ctx is
	// invalid after Execute returns.
	Execute(ctx context.Context, t *scsi.Task)

	// HasLU reports whether lun names a logical unit that n can address.
	HasLU(n *scsi.Nexus, lun [8]byte) bool
	// ResetLU performs the part of a LOGICAL UNIT RESET that the device server is
	// responsible for (reservations, unit attentions for every nexus), after the
	// transport has ended the tasks of the logical unit.
	ResetLU(n *scsi.Nexus, lun [8]byte)
	// TasksAborted notifies the device server that n has ended tasks of other nexuses
	// (CLEAR TASK SET), so that it can establish unit attentions.
	TasksAborted(n *scsi.Nexus, lun [8]byte)
}
