package scsi

// TaskAborter is the transport's interface for commands that abort the tasks of another
// I_T nexus (SPC-4 r37 5.12.11.2.7, PREEMPT AND ABORT).
type TaskAborter interface {
	// AbortTasks aborts the tasks of the nexus that match, all but except, without a
	// response. match may be called concurrently with the task. When AbortTasks returns,
	// none of them is running, or the transport's time limit has passed and their results
	// will be dropped. It may be called from Execute, with no lock held.
	AbortTasks(match func(t *Task) bool, except *Task)
}

// SetTaskAborter sets the transport's interface; the transport calls it once, after
// Attach.
func (n *Nexus) SetTaskAborter(a TaskAborter) { n.aborter.Store(&a) }

// AbortTasks aborts the tasks of n at lu, all but except (see TaskAborter). The caller
// establishes unit attentions.
func (n *Nexus) AbortTasks(lu *LogicalUnit, except *Task) {
	a := n.aborter.Load()
	if a == nil {
		return
	}
	(*a).AbortTasks(func(t *Task) bool { return t.At(lu) }, except)
}

// At reports whether the task is in the task set of lu: it waits there or runs. It may be
// called concurrently with the task, which must not be reused in the meantime. A task that
// Prepare has not passed is in no task set.
func (t *Task) At(lu *LogicalUnit) bool { return t.place.Load() != placeNone && t.LU == lu }

// ReportsAbort reports whether the task, if another I_T nexus aborts it, ends with TASK
// ABORTED status: the TAS bit of the Control mode page (SPC-4 r37 7.5.8). It is valid
// from Prepare on.
func (t *Task) ReportsAbort() bool { return t.LU != nil && t.LU.modes.ReportsAborts() }
