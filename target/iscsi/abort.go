package iscsi

import (
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/scsi"
)

// abortSet is a set of tasks aborted together, by a task management function or by a
// command that aborts the tasks of a nexus (scsi.TaskAborter).
type abortSet struct {
	// running has the tasks that were in DeviceServer.Execute.
	running []runningTask
}

// runningTask is a task that an abortSet waits for. The task must not be accessed once
// ended is closed, because it may then runReader another command.
type runningTask struct {
	task  *task
	sess  *session
	ended chan struct{}
}

// abort aborts t, a task of s, on behalf of the nexus by, and adds it to running if the
// caller must wait for it. The caller holds s.mu.
func (a *abortSet) abort(s *session, t *task, by *scsi.Nexus) {
	t.byOther = s.nexus != by
	if !s.abort(t) {
		return
	}
	if t.over == nil {
		t.over = make(chan struct{})
	}
	a.running = append(a.running, runningTask{t, s, t.over})
}

// abortMatching aborts the matching tasks of s on behalf of the nexus by, and reports
// whether there were any. The caller holds s.mu.
func (a *abortSet) abortMatching(s *session, by *scsi.Nexus, match func(t *task) bool) (any bool) {
	for _, t := range s.tasks {
		if match(t) {
			a.abort(s, t, by)
			any = true
		}
	}
	return any
}

// await waits until the aborted tasks have ended, for at most AbortTimeout, and detaches
// those that are still running. log is that of the requesting session or of the server.
func (a *abortSet) await(srv *Server, log *logrus.Entry) {
	timer := time.NewTimer(srv.options().AbortTimeout)
	defer timer.Stop()
	for i, r := range a.running {
		select {
		case <-r.ended:
		case <-timer.C:
			if n := detachAll(a.running[i:]); n > 0 {
				log.WithField("commands", n).Warn("aborted commands detached: still running after the abort timeout")
			}
			return
		}
	}
}

// detachAll detaches the tasks that have not ended. While the session's mu is held and
// ended is open, the task still carries the aborted command.
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
func (s *session) AbortTasks(match func(t *scsi.Task) bool, except *scsi.Task) {
	var a abortSet
	s.mu.Lock()
	any := a.abortMatching(s, except.Nexus, func(t *task) bool { return t.st != except && match(t.st) })
	s.mu.Unlock()
	if !any {
		return
	}
	a.await(s.srv, s.log)
	s.sendWindow()
}

// AbortTasks aborts the commands of all sessions at a logical unit that has left its
// target. They end with LOGICAL UNIT NOT SUPPORTED. It waits until they have ended, for at
// most AbortTimeout; after that their results are dropped.
func (srv *Server) AbortTasks(lu *scsi.LogicalUnit) {
	var a abortSet
	var affected []*session
	for _, s := range srv.allSessions() {
		s.mu.Lock()
		any := a.abortMatching(s, nil, func(t *task) bool {
			t.withoutUnit = t.withoutUnit || t.st.At(lu)
			return t.withoutUnit
		})
		s.mu.Unlock()
		if any {
			affected = append(affected, s)
		}
	}
	a.await(srv, srv.log)
	for _, s := range affected {
		s.sendWindow()
	}
}
