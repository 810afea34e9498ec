package iscsi

import "odx/target/scsi"

// heldTask is a task that waits in the task set of its logical unit until others
// have ended (SAM-5 8.6). It takes no worker meanwhile: the tasks that it waits
// for may need them.
type heldTask struct {
	task *task // nil once it waits no more; guarded by the session's mu
}

// holdBack reports whether t has to wait for other tasks; a worker will run it
// afterwards. mu is held.
func (s *session) holdBack(t *task) bool {
	if t.st.Enabled() {
		return false
	}
	h := &heldTask{t}
	// Whoever ends the last of the others calls this, whatever lock it holds.
	if t.st.WhenEnabled(func() { s.srv.workers.Go(func() { s.letGo(h) }) }) {
		return false
	}
	t.state, t.held = taskHeld, h
	return true
}

// letGo leaves a held task to the workers, unless it was aborted.
func (s *session) letGo(h *heldTask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := h.task; t != nil {
		t.held, h.task = nil, nil
		s.enqueue(t)
	}
}

// enqueue leaves t to the workers, HEAD OF QUEUE before others. mu is held.
func (s *session) enqueue(t *task) {
	t.state = taskReady
	s.ready = append(s.ready, t)
	if t.st.Attribute == scsi.AttributeHeadOfQueue {
		copy(s.ready[1:], s.ready)
		s.ready[0] = t
	}
	s.hire()
}
