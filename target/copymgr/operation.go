package copymgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/blockdev"
	"odx/offload"
	"odx/target/handover"
	"odx/target/scsi"
	"odx/tokens"
)

// Causes of an abort.
var (
	errAbortedByCommand = errors.New("aborted by COPY OPERATION ABORT")
	errReset            = errors.New("aborted by a logical unit reset")
	errPreempted        = errors.New("aborted by PREEMPT AND ABORT of another initiator")
	errRemoved          = errors.New("aborted: the logical unit is not served any more")
	errStopping         = errors.New("aborted: copy manager stopping")
	errHandedOver       = errors.New("aborted: another process takes over")
	// errOutOfTime ends the data movement of a foreground command, so that it can
	// report the part that is done.
	errOutOfTime = errors.New("time limit of a foreground copy reached")
)

// owner is the scope of a list identifier: an I_T nexus at a logical unit.
type owner struct {
	lu    *scsi.LogicalUnit
	nexus *scsi.Nexus
}

// use is an access of an operation to a logical unit, with the rights of an I_T nexus.
type use struct {
	lu *scsi.LogicalUnit
	by scsi.NexusID
}

// origin identifies the command in the log.
type origin struct {
	command string
	nexus   scsi.NexusID
	lun     [8]byte
	volume  string
}

func (u *logicalUnit) originOf(t *scsi.Task, command string) origin {
	return origin{command: command, nexus: t.Nexus.ID, lun: t.Lun, volume: u.name()}
}

func (o origin) fields() logrus.Fields {
	return logrus.Fields{
		"command":   o.command,
		"initiator": o.nexus.InitiatorName,
		"target":    o.nexus.TargetName,
		"lun":       fmt.Sprintf("%x", o.lun),
		"volume":    o.volume,
	}
}

// operation is one copy operation, from its command until its report is dropped.
type operation struct {
	manager *Manager
	owner   owner
	origin  origin
	uses    []use
	listID  uint32
	// identified: listID is valid, and initiators can request the report.
	identified    bool
	serviceAction byte
	units         byte // TRANSFER COUNT UNITS
	began         time.Time
	done          chan struct{} // closed when no more data moves

	progress progress
	copied   atomic.Int64 // bytes that could not be mapped
	account  scsi.Account // of the command

	// cdb and parameters are the command of an operation in the background, with which
	// another process goes on with it.
	cdb, parameters []byte
	// whole: what moves now cannot be continued where it stops.
	whole atomic.Bool
	// position is where the work has stopped for another process to go on; nil if none can.
	position *handover.RunningCopy

	// work moves the data; background: no command waits for it. Both are set before the
	// operation runs.
	work       work
	background bool

	// Guarded by operations.mu.
	owned *ownedOperations
	// ctx ends when the operation is aborted, and has no deadline; both are nil until
	// the operation runs. aborted is the cause of an earlier abort.
	ctx     context.Context
	cancel  context.CancelCauseFunc
	aborted error
	report  report
	ended   time.Time // zero while the operation runs
}

// progress counts the progress of an operation. Only its work writes it.
type progress struct {
	transferred atomic.Uint64 // in the operation's units, contiguous from the start
	expected    atomic.Uint64 // the same when all is done
	steps       atomic.Uint32 // OPERATION COUNTER
	segments    atomic.Uint32 // SEGMENTS PROCESSED
}

// advance counts a step that moved n units.
func (p *progress) advance(n uint64) {
	p.transferred.Add(n)
	p.steps.Add(1)
}

// Bounds of ESTIMATED STATUS UPDATE DELAY.
const (
	minDelay     = 10 * time.Millisecond
	maxDelay     = 2 * time.Second
	unknownDelay = 100 * time.Millisecond
)

// delay estimates the time until the operation ends, from its rate so far.
func (p *progress) delay(running time.Duration) time.Duration {
	done, all := p.transferred.Load(), p.expected.Load()
	if done == 0 || done >= all {
		return unknownDelay
	}
	left := float64(running) * float64(all-done) / float64(done)
	return min(max(time.Duration(left), minDelay), maxDelay)
}

// finished reports whether the operation has ended. The caller holds operations.mu.
func (op *operation) finished() bool { return !op.ended.IsZero() }

// currentReport returns the report of the current state. The caller holds
// operations.mu.
func (op *operation) currentReport() report {
	if op.finished() {
		return op.report
	}
	r := report{
		serviceAction: op.serviceAction, units: op.units, status: copyRunningForeground,
		transferCount: op.progress.transferred.Load(), steps: uint16(op.progress.steps.Load()),
		segments: uint16(op.progress.segments.Load()), delay: op.progress.delay(time.Since(op.began)),
	}
	if op.background {
		r.status = copyRunningBackground
	}
	return r
}

// copyContext is the context of a copy operation. Its Err also checks the command's own
// context, so that nothing is written after a command is aborted, however late the
// operation notices.
type copyContext struct {
	context.Context
	command context.Context
}

func (c *copyContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	return c.command.Err()
}

// work moves the data of an operation and returns its report. It stops soon after ctx
// ends.
type work func(ctx context.Context, op *operation) (report, error)

// foregroundTime bounds the data movement of a token command before it reports the part
// that is done: Windows permits four seconds per command. It is the deadline of the
// context, which all layers below observe.
const foregroundTime = 800 * time.Millisecond

// Run moves the data of the operation and stores its report. ctx is that of the
// command, whose end aborts the operation, or in the background the manager's. The
// operation has been added, and runs once.
func (op *operation) Run(ctx context.Context) {
	m, command := op.manager, ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !op.background {
		stopped := context.AfterFunc(m.base, func() { cancel(context.Cause(m.base)) })
		defer stopped()
	}
	m.operations.setContext(op, ctx, cancel)
	moving := offload.WithClient(blockdev.WithCopied(ctx, &op.copied), op.origin.nexus.InitiatorName)
	if !op.background && op.isTokenCommand() {
		var end context.CancelFunc
		moving, end = blockdev.WithTime(moving, m.foregroundTime, errOutOfTime)
		defer end()
	}
	r, err := op.work(&copyContext{moving, command}, op)
	cause := context.Cause(moving)
	if cause == nil {
		cause = command.Err()
	}
	if op.position != nil && m.park(op) {
		return
	}
	m.finish(op, r, err, cause)
}

// isLID1 reports whether the command has an 8-bit list identifier.
func (op *operation) isLID1() bool { return op.serviceAction == actionExtendedCopyLID1 }

// isTokenCommand reports whether the operation is one of SBC-3, which can end early and
// report its progress.
func (op *operation) isTokenCommand() bool {
	return op.serviceAction == actionPopulateToken || op.serviceAction == actionWriteUsingToken
}

// finish records the end of an operation; cause is the cause of an abort, or nil.
func (m *Manager) finish(op *operation, r report, err, cause error) {
	r.serviceAction, r.units, r.steps = op.serviceAction, op.units, uint16(op.progress.steps.Load())
	r.conclude(err, cause)
	switch {
	case r.status == copyTerminated:
		m.countAbort()
		m.log.WithFields(op.origin.fields()).WithError(cause).WithField("transferred", r.transferCount).Info("copy command aborted")
	case r.completion == statusBusy:
		m.refuseStatus(op.origin, statusBusy, cmp.Or(cause, err))
	case r.sense == nil:
	case r.transferCount == 0:
		m.refuse(op.origin, r.sense, err)
	default:
		log := m.log.WithFields(op.origin.fields()).WithField("transferred", r.transferCount)
		if err != nil { // otherwise its time or the token was over
			log = log.WithError(err)
		}
		log.Info("copy command ended early")
	}
	if kept := m.operations.finish(op, r); !kept && r.token != nil {
		// No initiator can retrieve this token any more.
		if err := m.tokens.Delete(context.WithoutCancel(m.base), r.token.ID(), tokens.Cancelled); err != nil {
			m.log.WithError(err).Warn("token of a dropped report not deleted: it stays until it expires")
		}
	}
	close(op.done)
}
