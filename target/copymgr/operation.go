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
	"odx/target/scsi"
	"odx/tokens"
)

// Why a copy operation was ended from outside.
var (
	errAbortedByCommand = errors.New("aborted by COPY OPERATION ABORT")
	errReset            = errors.New("aborted by a logical unit reset")
	errPreempted        = errors.New("aborted by PREEMPT AND ABORT of another initiator")
	errStopping         = errors.New("aborted: the copy manager stops")
	// errOutOfTime ends the work of a command that an initiator waits for, so
	// that it can answer with what is done.
	errOutOfTime = errors.New("the time of a foreground copy is over")
)

// owner is whom a list identifier belongs to: an I_T nexus at a logical unit.
type owner struct {
	lu    *scsi.LogicalUnit
	nexus *scsi.Nexus
}

// use is a logical unit that an operation reads or writes, with the rights of an
// I_T nexus.
type use struct {
	lu *scsi.LogicalUnit
	by scsi.NexusID
}

// origin says whose command is meant, in the log.
type origin struct {
	command string
	nexus   scsi.NexusID
	lun     [8]byte
	volume  string
}

func (u *unit) originOf(t *scsi.Task, command string) origin {
	return origin{command: command, nexus: t.Nexus.ID, lun: t.Lun, volume: u.volume}
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

// operation is one copy operation, from its command until nobody can ask for
// its report any more.
type operation struct {
	manager *Manager
	owner   owner
	origin  origin
	uses    []use
	listID  uint32
	// identified says that listID is one: initiators can ask for the report.
	identified    bool
	serviceAction byte
	units         byte // TRANSFER COUNT UNITS
	began         time.Time
	done          chan struct{} // closed when no data moves any more

	progress progress
	copied   atomic.Int64 // bytes that could not be mapped

	// work moves the data; background says that no command waits for it. Both are set
	// before the operation runs.
	work       work
	background bool

	// Guarded by operations.mu.
	owned *ownedOperations
	// ctx ends when the operation is aborted, and has no deadline; both are nil until
	// the operation runs. aborted is why it was aborted before.
	ctx     context.Context
	cancel  context.CancelCauseFunc
	aborted error
	report  report
	ended   time.Time // zero while it runs
}

// progress is how far an operation has come. Its work counts, others look.
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

// delay estimates when the operation will have ended, from its pace so far.
func (p *progress) delay(running time.Duration) time.Duration {
	done, all := p.transferred.Load(), p.expected.Load()
	if done == 0 || done >= all {
		return unknownDelay
	}
	left := float64(running) * float64(all-done) / float64(done)
	return min(max(time.Duration(left), minDelay), maxDelay)
}

// finished reports whether the operation has ended. operations.mu is held.
func (op *operation) finished() bool { return !op.ended.IsZero() }

// snapshot returns the report of now. operations.mu is held.
func (op *operation) snapshot() report {
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

// copyContext is the context that a copy operation works under. Its Err looks
// at the command's own context as well, so that from the moment at which a
// command is aborted nothing is written any more, however late the operation's
// end is noticed.
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

// work moves the data of an operation and returns what there is to report. It
// stops soon after ctx ends.
type work func(ctx context.Context, op *operation) (report, error)

// foregroundTime is how long a command that moves data by token goes on before
// it answers with what it did: Windows gives each of them four seconds. It is the
// deadline of the context that the data is moved under, which everything below keeps to.
const foregroundTime = 800 * time.Millisecond

// Run moves the data of the operation and enters its report. ctx is that of the
// command, whose end ends the operation, or in the background the manager's. The
// operation has begun, and runs once.
func (op *operation) Run(ctx context.Context) {
	m, command := op.manager, ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !op.background {
		stopped := context.AfterFunc(m.base, func() { cancel(context.Cause(m.base)) })
		defer stopped()
	}
	m.operations.setContext(op, ctx, cancel)
	moving := blockdev.WithCopied(ctx, &op.copied)
	if !op.background && op.isTokenCommand() {
		var end context.CancelFunc
		moving, end = context.WithTimeoutCause(moving, m.foregroundTime, errOutOfTime)
		defer end()
	}
	r, err := op.work(&copyContext{moving, command}, op)
	cause := context.Cause(moving)
	if cause == nil {
		cause = command.Err()
	}
	m.finish(op, r, err, cause)
}

// isLID1 reports whether the command has an 8-bit list identifier.
func (op *operation) isLID1() bool { return op.serviceAction == actionExtendedCopyLID1 }

// isTokenCommand reports whether the operation is one of SBC-3, which can end
// early and say how far it came.
func (op *operation) isTokenCommand() bool {
	return op.serviceAction == actionPopulateToken || op.serviceAction == actionWriteUsingToken
}

// finish enters the end of an operation: cause says why it was ended from
// outside, nil if it was not.
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
		m.log.WithFields(op.origin.fields()).WithField("transferred", r.transferCount).WithError(err).Info("copy command ended early")
	}
	if kept := m.operations.finish(op, r); !kept && r.token != nil {
		// Nobody can ask for this token any more.
		if err := m.tokens.Delete(context.WithoutCancel(m.base), r.token.ID(), tokens.Cancelled); err != nil {
			m.log.WithError(err).Warn("a token that nobody can ask for stays until it expires")
		}
	}
	close(op.done)
}
