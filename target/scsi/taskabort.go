package scsi

// TaskAborter is what a transport offers to commands that end the tasks of
// another I_T nexus (SPC-4 r37 5.12.11.2.7, PREEMPT AND ABORT).
type TaskAborter interface {
	// AbortTasks ends the tasks of the nexus whose LUN matches, all but except,
	// without a response. When it returns, none of them runs any more, or the
	// transport's bound for that is over and their results will be dropped. It
	// may be called from Execute, with no lock held.
	AbortTasks(match func(lun [8]byte) bool, except *Task)
}

// SetTaskAborter is called by the transport once, after Attach.
func (n *Nexus) SetTaskAborter(a TaskAborter) { n.aborter.Store(&a) }

// AbortTasks ends the tasks that n has at lu, all but except (see TaskAborter).
// Unit attentions are left to the caller.
func (n *Nexus) AbortTasks(lu *LogicalUnit, except *Task) {
	a := n.aborter.Load()
	if a == nil {
		return
	}
	(*a).AbortTasks(func(lun [8]byte) bool {
		itl := n.unit(lun)
		return itl != nil && itl.lu == lu
	}, except)
}

// TellsAbort reports whether the task, if another I_T nexus aborts it, ends with
// TASK ABORTED status: the TAS bit of the Control mode page (SPC-4 r37 7.5.8). It
// holds from Prepare on.
func (t *Task) TellsAbort() bool { return t.LU != nil && t.LU.modes.ReportsAborts() }
