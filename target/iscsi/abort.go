package iscsi

import (
	"time"

	"odx/target/scsi"
)

// abortion is the end of many tasks: task management, or a command that ends
// the tasks of a nexus (scsi.TaskAborter).
type abortion struct {
	// running are the tasks that were in DeviceServer.Execute.
	running []runningTask
}

// runningTask is a task that an abortion waits for. It may be touched only
// while ended is open: afterwards it may carry another command.
type runningTask struct {
	task  *task
	sess  *session
	ended chan struct{}
}

// abort aborts t, a task of s, and notes it if it must be waited for. by is the
// nexus that asks for it. s.mu is held.
func (a *abortion) abort(s *session, t *task, by *scsi.Nexus) {
	t.byOther = s.nexus != by
	if !s.abort(t) {
		return
	}
	if t.ended == nil {
		t.ended = make(chan struct{})
	}
	a.running = append(a.running, runningTask{t, s, t.ended})
}

// abortMatching aborts the tasks of s that match, because the nexus by asks for it,
// and reports whether there were any. s.mu is held.
func (a *abortion) abortMatching(s *session, by *scsi.Nexus, match func(t *task) bool) (any bool) {
	for _, t := range s.tasks {
		if match(t) {
			a.abort(s, t, by)
			any = true
		}
	}
	return any
}

// await waits until the aborted tasks have ended, but no longer than
// AbortTimeout: what is running then is detached. s is the session that asks.
func (a *abortion) await(s *session) {
	timer := time.NewTimer(s.srv.opts.AbortTimeout)
	defer timer.Stop()
	for i, r := range a.running {
		select {
		case <-r.ended:
		case <-timer.C:
			if n := detachAll(a.running[i:]); n > 0 {
				s.log.WithField("commands", n).Warn("aborted commands did not end in time, their results will be dropped")
			}
			return
		}
	}
}

// detachAll gives up the tasks that have not ended. While a task's mu is held
// and ended is open, the task still carries the command that was aborted.
func detachAll(tasks []runningTask) (n int) {
	for _, r := range tasks {
		r.sess.mu.Lock()
		select {
		case <-r.ended:
		default:
			r.sess.detach(r.task)
			n++
		}
		r.sess.mu.Unlock()
	}
	return n
}

// AbortTasks implements scsi.TaskAborter.
func (s *session) AbortTasks(match func(lun [8]byte) bool, except *scsi.Task) {
	var a abortion
	s.mu.Lock()
	any := a.abortMatching(s, except.Nexus, func(t *task) bool { return t.st != except && match(t.st.Lun) })
	s.mu.Unlock()
	if !any {
		return
	}
	a.await(s)
	s.announceWindow()
}
