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
)

// taskSet orders the tasks of a logical unit, of all nexuses together (TST 000b in the
// Control mode page).
//
// While every task is SIMPLE, tasks are only counted. The first other one starts
// ordered mode: from then on each new task becomes an entry of the queue, and the
// counted tasks are older than all entries. Ordered mode ends with the last entry.
type taskSet struct {
	// state is the number of counted tasks, plus orderedMode. The flag changes with mu
	// held. A task that has counted itself and then finds the flag set undoes the
	// count.
	state atomic.Int64

	mu    sync.Mutex   // guards queue and the entries
	queue []*taskEntry // in the order of arrival
}

const orderedMode = 1 << 62

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
	full := mine > maxNexusTasks
	if !full {
		limit := int64(maxTasks)
		if mine <= reservedTasks {
			limit *= 2
		}
		full = !i.lu.tasks.enter(t, attribute, limit)
	}
	if !full {
		return nil
	}
	i.tasks.Add(-1)
	if mine == 1 {
		return errBusy
	}
	return errTaskSetFull
}

// enter adds t if the set has fewer than limit tasks, and reports whether it did.
func (s *taskSet) enter(t *Task, attribute int, limit int64) bool {
	if attribute == attributeSimple {
		state := s.state.Add(1)
		if state&orderedMode == 0 && state <= limit {
			t.place.Store(placeCounted)
			return true
		}
		s.state.Add(-1)
		if state&orderedMode == 0 {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	counted := s.state.Load() &^ orderedMode
	if counted+int64(len(s.queue)) >= limit {
		s.advance() // the undone count may have been the last
		return false
	}
	if attribute == attributeSimple && len(s.queue) == 0 {
		s.state.Add(1) // ordered mode has ended in the meantime
		t.place.Store(placeCounted)
		return true
	}
	s.state.Or(orderedMode)
	t.entry = &taskEntry{attribute: attribute, exclusive: t.exclusive}
	t.place.Store(placeQueued)
	s.queue = append(s.queue, t.entry)
	s.advance()
	return true
}

// advance enables tasks that may run (SAM-5 8.6): a HEAD OF QUEUE task at once, an
// ORDERED one when it is the oldest of all, a SIMPLE one when no ORDERED one is older;
// neither of these while there is a HEAD OF QUEUE task. An exclusive task runs alone,
// even if it or another is a HEAD OF QUEUE task. It ends ordered mode when the queue is
// empty. The caller holds mu.
func (s *taskSet) advance() {
	if len(s.queue) == 0 {
		s.state.And(^orderedMode)
		return
	}
	if slices.ContainsFunc(s.queue, func(e *taskEntry) bool { return e.exclusive && e.enabled.Load() }) {
		return
	}
	head := slices.ContainsFunc(s.queue, func(e *taskEntry) bool { return e.attribute == AttributeHeadOfQueue })
	oldest := s.state.Load()&^orderedMode == 0
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
	return s.state.Load()&^orderedMode == 0 && !slices.ContainsFunc(s.queue, func(e *taskEntry) bool { return e.enabled.Load() })
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

// Enabled reports whether the task may run now. A task that Prepare did not pass is
// always enabled.
func (t *Task) Enabled() bool { return t.entry == nil || t.entry.enabled.Load() }

// WhenEnabled reports whether the task may run now; otherwise wake is called once, when
// it may. wake must return at once and must take no lock that is held around a method
// of a Task. A task that has left is not woken.
func (t *Task) WhenEnabled(wake func()) (enabled bool) {
	if t.entry == nil {
		return true
	}
	s := &t.LU.tasks
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.entry.enabled.Load() {
		return true
	}
	t.entry.wake = wake
	return false
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
	s := &t.LU.tasks
	if place == placeCounted {
		if s.state.Add(-1) == orderedMode { // the last counted one
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
