package scsi

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// Task attributes (SAM-5 8.6) with the numbers that RFC 7143 11.3.1 gives them.
const (
	attributeUntagged = 0 // processed as SIMPLE
	attributeSimple   = 1
	attributeOrdered  = 2
	// AttributeHeadOfQueue is for the transport, too: it starts such a task before
	// others that wait.
	AttributeHeadOfQueue = 3
	attributeACA         = 4
)

// Bounds of a task set. A nexus cannot reach its own over iSCSI, where the window
// of command numbers is smaller.
const (
	maxTasks      = 4096
	maxNexusTasks = 1024
	// A nexus with no more tasks than reservedTasks finds room in the second half of
	// 2 × maxTasks, so that others cannot take all of a task set.
	reservedTasks = 4
)

// How a command ends that the task set has no room for (SAM-5 5.3.1): with BUSY
// where the nexus has no other task whose end it could wait for.
var (
	errTaskSetFull = errors.New("task set full")
	errBusy        = errors.New("busy")
)

// taskSet orders the tasks of a logical unit, of all nexuses together (TST 000b
// in the Control mode page).
//
// While every task is SIMPLE, they are only counted. The first other one begins
// ordered mode: from then on each task that enters becomes an entry of the queue,
// and those that were counted before are older than all entries. Ordered mode
// ends with the last entry.
type taskSet struct {
	// state is the number of counted tasks, and orderedMode. The flag changes with
	// mu held. A task that counts itself and then sees the flag takes that back.
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
	wake      func() // called when it becomes enabled; nil: nobody waits
}

// taskPlace says where in a task set a task is.
type taskPlace = uint32

const (
	placeNone taskPlace = iota
	placeCounted
	placeQueued
)

// enterTaskSet makes t one of its logical unit's tasks, which ends when Execute
// returns, or with Leave.
func (i *itlNexus) enterTaskSet(t *Task) error {
	attribute := attributeSimple
	switch t.Attribute {
	case attributeUntagged, attributeSimple:
	case attributeOrdered, AttributeHeadOfQueue:
		attribute = t.Attribute
	case attributeACA: // there is no ACA condition (SAM-5 8.6.5)
		return NewSense(KeyIllegalRequest, ASCInvalidMessageError)
	default:
		return NewSense(KeyIllegalRequest, ASCInvalidFieldInCommandIU)
	}
	if t.exclusive && attribute == attributeSimple {
		attribute = attributeOrdered
	}
	mine := i.tasks.Add(1)
	full := mine > maxNexusTasks
	if !full {
		room := int64(maxTasks)
		if mine <= reservedTasks {
			room *= 2
		}
		full = !i.lu.tasks.enter(t, attribute, room)
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

// enter adds t to at most room tasks; false says that there is no room.
func (s *taskSet) enter(t *Task, attribute int, room int64) bool {
	if attribute == attributeSimple {
		state := s.state.Add(1)
		if state&orderedMode == 0 && state <= room {
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
	if counted+int64(len(s.queue)) >= room {
		s.advance() // what was taken back may have been the last
		return false
	}
	if attribute == attributeSimple && len(s.queue) == 0 {
		s.state.Add(1) // ordered mode has ended meanwhile
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

// advance enables what may run (SAM-5 8.6): a HEAD OF QUEUE task at once, an
// ORDERED one when it is the oldest of all, a SIMPLE one when no ORDERED one is
// older; neither of these while there is a HEAD OF QUEUE task. A task that is one step
// towards all others runs alone, also where it or another is a HEAD OF QUEUE task. It
// ends ordered mode when nothing is left. mu is held.
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

// idle reports that no task may run. mu is held.
func (s *taskSet) idle() bool {
	return s.state.Load()&^orderedMode == 0 && !slices.ContainsFunc(s.queue, func(e *taskEntry) bool { return e.enabled.Load() })
}

// enable lets a task run; the task set's mu is held.
func (e *taskEntry) enable() {
	if e.enabled.Swap(true) {
		return
	}
	if e.wake != nil {
		e.wake()
	}
}

// Enabled reports whether the task may run now. One that Prepare did not pass
// may.
func (t *Task) Enabled() bool { return t.entry == nil || t.entry.enabled.Load() }

// WhenEnabled reports whether the task may run now; otherwise it has wake called
// once, when it may. wake must return at once and must take no lock that is held
// around a method of a Task. A task that has left is not woken any more.
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

// awaitEnabled is for those who run Execute without looking.
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

// Leave takes the task out of its task set, if it is in one: others need not wait
// for it any more. Execute does so at its end, and Release; a transport calls it
// for an aborted task that it does not wait for.
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
		if s.state.Add(-1) == orderedMode { // the last one that was counted
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
