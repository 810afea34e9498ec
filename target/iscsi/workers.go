package iscsi

import (
	"slices"
	"sync"
)

// crew are the workers of a session, which run its commands side by side. One
// that finds no command stays, because its stack has grown as far as the way
// down to the disk needs: initiators send commands in bursts. It is guarded by
// the session's mu.
type crew struct {
	running int // workers that run a command or are about to
	idle    int // workers that stay
	spare   int // the fewest that were idle since the server last looked
	// called and dismissed are how many idle workers are to go on, and to end,
	// and have not woken up. The former count as running already.
	called, dismissed int
	wake              sync.Cond
}

// hire has one more worker run if there is work for it. mu is held.
func (s *session) hire() {
	if len(s.ready) == 0 || s.running >= s.srv.opts.Workers {
		return
	}
	s.running++
	if s.idle == 0 {
		s.srv.workers.Add(1)
		go s.work()
		return
	}
	s.idle--
	s.spare = min(s.spare, s.idle)
	s.called++
	s.wake.Signal()
}

// dismiss ends n idle workers. mu is held.
func (s *session) dismiss(n int) {
	s.idle -= n
	s.spare = s.idle
	s.dismissed += n
	for range n {
		s.wake.Signal()
	}
}

// dismissSpare ends the workers that no session has needed since the last call.
func (srv *Server) dismissSpare() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.mu.Lock()
		s.dismiss(s.spare)
		s.mu.Unlock()
	}
}

// work is a worker.
func (s *session) work() {
	defer s.srv.workers.Done()
	for {
		t := s.next()
		if t == nil {
			return
		}
		c := t.conn
		t.execute()
		t.settle()
		replaced := s.finish(t)
		c.out.flush()
		if replaced {
			return
		}
	}
}

// next returns the next command for a worker, as soon as there is one that may
// start; nil for a worker that is to end.
func (s *session) next() *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.startable()
	for i < 0 {
		if !s.rest() {
			return nil
		}
		i = s.startable()
	}
	t := s.ready[i]
	s.ready = slices.Delete(s.ready, i, i+1)
	t.state, t.onWorker = taskRunning, true
	s.executing++
	return t
}

// rest has a worker wait until it is called; false says that it is to end. mu
// is held, but not meanwhile.
func (s *session) rest() (called bool) {
	s.running--
	if s.closed {
		return false
	}
	s.idle++
	for s.called == 0 && s.dismissed == 0 {
		s.wake.Wait()
	}
	if s.called == 0 {
		s.dismissed--
		return false
	}
	s.called--
	return true
}
