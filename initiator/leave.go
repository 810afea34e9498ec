package initiator

import "time"

// Events of an Asynchronous Message (RFC 7143 11.9.1).
const (
	asyncSCSI          = 0
	asyncLogoutRequest = 1
)

// leave logs out, as the target has asked, once the running commands have ended, or limit has
// passed. New ones are refused. The reader calls it.
func (s *Session) leave(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving != nil {
		return
	}
	idle := make(chan struct{})
	s.leaving = idle
	if len(s.tasks) == 0 {
		close(idle)
	}
	close(s.moved) // commands that wait for the window find that they are refused
	s.moved = make(chan struct{})
	s.reader.Go(func() {
		late := time.NewTimer(limit)
		defer late.Stop()
		select {
		case <-idle:
		case <-late.C:
		case <-s.ended:
			return
		}
		s.logOut()
		s.conn.Close()
	})
}

// forget removes a command that has ended.
func (s *Session) forget(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, t.itt)
	if s.leaving != nil && len(s.tasks) == 0 {
		close(s.leaving)
	}
}
