package iscsi

import (
	"slices"
	"sync"
)

// workerPool is the state of a session's workers, which run its commands concurrently.
// A worker without a command parks, because its stack has grown to the depth of the I/O
// path and initiators send commands in bursts. The session's mu guards the pool.
type workerPool struct {
	running int // workers that run a command or are about to
	idle    int // parked workers
	spare   int // minimum of idle since the last retireSpare
	// resumed and retired are the numbers of parked workers that are to resume and to end,
	// but have not woken up. Resumed workers already count as running.
	resumed, retired int
	wake             sync.Cond
}

// spawn starts or resumes a worker if there is work for it. The caller holds mu.
func (s *session) spawn() {
	if len(s.ready) == 0 || s.running >= s.srv.options().Workers {
		return
	}
	if s.idle == 0 {
		if s.srv.takeWorker(s.running) {
			s.running++
			s.srv.workers.Add(1)
			go s.work()
		}
		return
	}
	s.running++
	s.idle--
	s.spare = min(s.spare, s.idle)
	s.resumed++
	s.wake.Signal()
}

// takeWorker counts another worker of a session that has own. It returns false if others
// may need it.
func (srv *Server) takeWorker(own int) bool {
	if n := int(srv.working.Add(1)); own == 0 || own <= srv.options().MaxWorkers-n {
		return true
	}
	srv.working.Add(-1)
	return false
}

// retire ends n parked workers. The caller holds mu.
func (s *session) retire(n int) {
	s.idle -= n
	s.spare = s.idle
	s.retired += n
	for range n {
		s.wake.Signal()
	}
}

// retireSpare ends the workers that were not needed since the last call.
func (srv *Server) retireSpare() {
	for _, s := range srv.allSessions() {
		s.mu.Lock()
		s.retire(s.spare)
		s.mu.Unlock()
	}
}

// work is the goroutine of a worker.
func (s *session) work() {
	defer s.srv.workers.Done()
	defer s.srv.working.Add(-1)
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

// next returns a command that may start, and parks the worker until there is one. It
// returns nil if the worker is to end.
func (s *session) next() *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running > s.srv.options().Workers { // the limit was lowered
		s.running--
		s.noteQuiet()
		return nil
	}
	i := s.startable()
	for i < 0 {
		if !s.park() {
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

// park parks a worker until it is resumed. It returns false if the worker is to end.
// The caller holds mu, which is released while parked.
func (s *session) park() (resumed bool) {
	s.running--
	s.noteQuiet()
	if s.closed {
		return false
	}
	s.idle++
	for s.resumed == 0 && s.retired == 0 {
		s.wake.Wait()
	}
	if s.resumed == 0 {
		s.retired--
		return false
	}
	s.resumed--
	return true
}
