package iscsi

import "odx/target/scsi"

// heldTask is a task that is held in the task set of its logical unit until others have
// ended (SAM-5 8.6). It occupies no worker, since the tasks that it waits for may need
// one.
type heldTask struct {
	task *task // nil when no longer held; guarded by the session's mu
}

// holdBack reports whether t must wait for other tasks. A worker then runs it afterwards.
// The caller holds mu.
func (s *session) holdBack(t *task) bool {
	if t.st.Enabled() {
		return false
	}
	h := &heldTask{t}
	// The task that ends last calls this, with any locks held.
	if t.st.WhenEnabled(func() { s.srv.workers.Go(func() { s.releaseHeld(h) }) }) {
		return false
	}
	t.state, t.held = taskHeld, h
	t.hold()
	return true
}

// releaseHeld enqueues a held task, unless it was aborted.
func (s *session) releaseHeld(h *heldTask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := h.task; t != nil {
		t.held, h.task = nil, nil
		t.release()
		s.enqueue(t)
	}
}

// enqueue makes t ready for a worker, HEAD OF QUEUE tasks first. The caller holds mu.
func (s *session) enqueue(t *task) {
	t.state = taskReady
	s.ready = append(s.ready, t)
	if t.st.Attribute == scsi.AttributeHeadOfQueue {
		copy(s.ready[1:], s.ready)
		s.ready[0] = t
	}
	s.spawn()
}
