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
	owner  owner
	origin origin
	uses   []use
	listID uint32
	// identified says that listID is one: initiators can ask for the report.
	identified    bool
	serviceAction byte
	units         byte // TRANSFER COUNT UNITS
	began         time.Time
	done          chan struct{} // closed when no data moves any more

	progress progress
	copied   atomic.Int64 // bytes that could not be mapped

	// Guarded by operations.mu.
	owned      *ownedOperations
	background bool
	// ctx ends when the operation is aborted; both are nil until the work starts.
	ctx    context.Context
	cancel context.CancelCauseFunc
	report report
	ended  time.Time // zero while it runs
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
// it answers with what it did: Windows gives each of them four seconds.
const foregroundTime = 800 * time.Millisecond

// start begins the work of p: it is run on a goroutine of the manager if it is in
// the background, otherwise by whoever calls the function that is returned,
// which saves two changes of goroutine in what takes microseconds. command is
// the context of the command, which ends the work unless it is in the background.
func (m *Manager) start(command context.Context, op *operation, p plan) (run func()) {
	var ctx context.Context
	var cancel context.CancelCauseFunc
	release := func() {}
	if p.background {
		command = context.Background()
		ctx, cancel = context.WithCancelCause(m.base)
	} else {
		ctx, cancel = context.WithCancelCause(command)
		stopped := context.AfterFunc(m.base, func() { cancel(context.Cause(m.base)) })
		release = func() { stopped() }
	}
	timed, late := blockdev.WithCopied(ctx, &op.copied), context.CancelFunc(func() {})
	if !p.background && op.isTokenCommand() {
		timed, late = context.WithTimeoutCause(timed, foregroundTime, errOutOfTime)
	}
	m.operations.setContext(op, timed, cancel)
	m.running.Add(1)
	run = func() {
		defer m.running.Done()
		defer cancel(nil)
		defer release()
		defer late()
		r, err := p.work(&copyContext{timed, command}, op)
		cause := context.Cause(timed)
		if cause == nil {
			cause = command.Err()
		}
		m.finish(op, r, err, cause)
	}
	if p.background {
		go run()
		return nil
	}
	return run
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
