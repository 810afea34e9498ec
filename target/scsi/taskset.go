package scsi

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"odx/target/scsi/sense"
)

// Task attributes (SAM-5 8.6) with the numbers of RFC 7143 11.3.1.
const (
	attributeUntagged = 0 // processed as SIMPLE
	attributeSimple   = 1
	attributeOrdered  = 2
	// AttributeHeadOfQueue is exported for the transport, which starts such a task
	// before other waiting ones.
	AttributeHeadOfQueue = 3
	attributeACA         = 4
)

// Bounds of a task set. Over iSCSI a nexus cannot reach its own, because the command
// window is smaller.
const (
	maxTasks      = 4096
	maxNexusTasks = 1024
	// A nexus with at most reservedTasks tasks may use the second half of 2 × maxTasks,
	// so that others cannot fill a task set.
	reservedTasks = 4
)

// Errors of commands that exceed the task set (SAM-5 5.3.1): BUSY if the nexus has no
// other task to wait for.
var (
	errTaskSetFull = errors.New("task set full")
	errBusy        = errors.New("busy")
	// errClosed: the task set takes no more tasks.
	errClosed = errors.New("task set closed")
)

// taskSet orders the tasks of a logical unit, of all nexuses together (TST 000b in the
// Control mode page).
//
// While every task is SIMPLE, tasks are only counted. The first other one starts
// ordered mode: from then on each new task becomes an entry of the queue, and the
// counted tasks are older than all entries. Ordered mode ends with the last entry.
type taskSet struct {
	// state is the number of counted tasks, plus orderedMode and closedMode. The flags
	// change with mu held. A task that has counted itself and then finds a flag set undoes
	// the count.
	state atomic.Int64

	mu    sync.Mutex   // guards queue and the entries
	queue []*taskEntry // in the order of arrival
	// drained is closed once a closed set is empty; nil while the set is open.
	drained chan struct{}
}

const (
	orderedMode = 1 << 62
	closedMode  = 1 << 61
	modes       = orderedMode | closedMode
)

// close makes the set take no more tasks. The channel is closed once it has none.
func (s *taskSet) close() (drained <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drained == nil {
		s.drained = make(chan struct{})
		s.state.Or(closedMode)
		s.advance()
	}
	return s.drained
}

// open ends close.
func (s *taskSet) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = nil
	s.state.And(^closedMode)
}

// counted returns the number of counted tasks.
func (s *taskSet) counted() int64 { return s.state.Load() &^ modes }

// taskEntry is a task in ordered mode.
type taskEntry struct {
	attribute int
	exclusive bool // Task.exclusive
	enabled   atomic.Bool
	wake      func() // called once the task becomes enabled; nil: no waiter
}

// taskPlace is the position of a task in a task set.
type taskPlace = uint32

const (
	placeNone taskPlace = iota
	placeCounted
	placeQueued
)

// enterTaskSet adds t to the tasks of its logical unit, until Execute returns or Leave.
func (i *itlNexus) enterTaskSet(t *Task) error {
	attribute := attributeSimple
	switch t.Attribute {
	case attributeUntagged, attributeSimple:
	case attributeOrdered, AttributeHeadOfQueue:
		attribute = t.Attribute
	case attributeACA: // there is no ACA condition (SAM-5 8.6.5)
		return sense.New(sense.KeyIllegalRequest, sense.ASCInvalidMessageError)
	default:
		return sense.New(sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
	}
	if t.exclusive && attribute == attributeSimple {
		attribute = attributeOrdered
	}
	mine := i.tasks.Add(1)
	err := errTaskSetFull
	if mine <= maxNexusTasks {
		limit := int64(maxTasks)
		if mine <= reservedTasks {
			limit *= 2
		}
		err = i.lu.tasks.enter(t, attribute, limit)
	}
	if err == nil {
		return nil
	}
	i.tasks.Add(-1)
	switch {
	case err == errClosed:
		return sense.New(sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
	case mine == 1:
		return errBusy
	}
	return err
}

// enter adds t if the set is open and has fewer than limit tasks.
func (s *taskSet) enter(t *Task, attribute int, limit int64) error {
	if attribute == attributeSimple {
		state := s.state.Add(1)
		if state&modes == 0 && state <= limit {
			t.place.Store(placeCounted)
			return nil
		}
		s.state.Add(-1)
		if state&modes == 0 {
			return errTaskSetFull
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.advance() // an undone count may have been the last
	switch {
	case s.drained != nil:
		return errClosed
	case s.counted()+int64(len(s.queue)) >= limit:
		return errTaskSetFull
	case attribute == attributeSimple && len(s.queue) == 0:
		s.state.Add(1) // ordered mode has ended in the meantime
		t.place.Store(placeCounted)
		return nil
	}
	s.state.Or(orderedMode)
	t.entry = &taskEntry{attribute: attribute, exclusive: t.exclusive}
	t.place.Store(placeQueued)
	s.queue = append(s.queue, t.entry)
	return nil
}

// advance enables tasks that may run (SAM-5 8.6): a HEAD OF QUEUE task at once, an
// ORDERED one when it is the oldest of all, a SIMPLE one when no ORDERED one is older;
// neither of these while there is a HEAD OF QUEUE task. An exclusive task runs alone,
// even if it or another is a HEAD OF QUEUE task. It ends ordered mode when the queue is
// empty, and notifies close when there is no task. The caller holds mu.
func (s *taskSet) advance() {
	if len(s.queue) == 0 {
		s.state.And(^orderedMode)
		s.noteDrained()
		return
	}
	if slices.ContainsFunc(s.queue, func(e *taskEntry) bool { return e.exclusive && e.enabled.Load() }) {
		return
	}
	head := slices.ContainsFunc(s.queue, func(e *taskEntry) bool { return e.attribute == AttributeHeadOfQueue })
	oldest := s.counted() == 0
	for _, e := range s.queue {
		switch {
		case e.attribute == AttributeHeadOfQueue && e.exclusive:
			if s.idle() {
				e.enable()
			}
			return
		case e.attribute == AttributeHeadOfQueue:
			e.enable()
		case head:
		case e.attribute == attributeSimple:
			e.enable()
		case oldest:
			e.enable()
			return
		default:
			return
		}
		oldest = false
	}
}

// idle reports whether no task may run. The caller holds mu.
func (s *taskSet) idle() bool {
	return s.counted() == 0 && !slices.ContainsFunc(s.queue, func(e *taskEntry) bool { return e.enabled.Load() })
}

// noteDrained closes drained if the set is closed and empty. The caller holds mu.
func (s *taskSet) noteDrained() {
	if s.drained == nil || s.counted() != 0 || len(s.queue) != 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// enable permits a task to run. The caller holds the task set's mu.
func (e *taskEntry) enable() {
	if e.enabled.Swap(true) {
		return
	}
	if e.wake != nil {
		e.wake()
	}
}

// Enabled reports whether the task may run now: neither other tasks nor limits hold it
// back. It has its data by then. A task that Prepare did not pass is always enabled. Once
// a task is enabled it stays so.
func (t *Task) Enabled() bool {
	return (t.entry == nil || t.entry.enabled.Load()) && t.withinLimits() && t.begins()
}

// WhenEnabled reports whether the task may run now; otherwise wake is called once, when
// it may. wake must return at once and must take no lock that is held around a method
// of a Task. A task that has left is not woken.
func (t *Task) WhenEnabled(wake func()) (enabled bool) {
	if t.entry != nil && t.entry.wakeWhenEnabled(t, wake) {
		return false
	}
	return t.whenFree(wake)
}

// whenFree is WhenEnabled for a task that waits for no other: limits and a hold can keep
// it back.
func (t *Task) whenFree(wake func()) (enabled bool) {
	within := t.whenWithinLimits(func() {
		if t.whenReleased(wake) {
			wake()
		}
	})
	return within && t.whenReleased(wake)
}

// wakeWhenEnabled registers wake for a task that waits for others, or returns false.
// Limits come afterwards: a task that waits for them is older than those after it, and
// these wait for it where they have to.
func (e *taskEntry) wakeWhenEnabled(t *Task, wake func()) (waits bool) {
	s := &t.LU.tasks
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.enabled.Load() {
		return false
	}
	e.wake = func() {
		if t.whenFree(wake) {
			wake()
		}
	}
	return true
}

// awaitEnabled waits, for callers of Execute that did not check Enabled.
func (t *Task) awaitEnabled(ctx context.Context) error {
	if t.Enabled() {
		return nil
	}
	enabled := make(chan struct{})
	if t.WhenEnabled(func() { close(enabled) }) {
		return nil
	}
	select {
	case <-enabled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave removes the task from its task set, if it is in one: other tasks no longer wait
// for it. Execute calls it at its end, and so does Release; a transport calls it for an
// aborted task that it does not wait for.
func (t *Task) Leave() {
	if t.place.Load() == placeNone {
		return
	}
	place := t.place.Swap(placeNone)
	if place == placeNone {
		return
	}
	t.itl.tasks.Add(-1)
	t.LU.tasks.leave(t, place)
	// Afterwards: until then another task that leaves could take this one to its limits.
	if t.gated {
		t.wait.Cancel()
	}
	t.LU.holding.leave(t) // afterwards, for the same reason
}

// leave removes a task.
func (s *taskSet) leave(t *Task, place taskPlace) {
	if place == placeCounted {
		if state := s.state.Add(-1); state&modes != 0 && state&^modes == 0 { // the last counted one
			s.mu.Lock()
			s.advance()
			s.mu.Unlock()
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, t.entry)
	t.entry.wake = nil
	s.queue = slices.Delete(s.queue, i, i+1)
	s.advance()
}
