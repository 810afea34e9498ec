package scsi

import (
	"slices"
	"testing"
)

// recorder records which of some tasks it was asked to abort.
type recorder struct {
	tasks   []*Task
	aborted []*Task
	except  *Task
}

func (r *recorder) AbortTasks(match func(*Task) bool, except *Task) {
	r.except, r.aborted = except, nil
	for _, t := range r.tasks {
		if match(t) {
			r.aborted = append(r.aborted, t)
		}
	}
}

// prepared returns a task that is in the task set of its logical unit.
func (f *fixture) prepared(n *Nexus, cdb []byte) *Task {
	f.t.Helper()
	task := NewTask(&f.pool)
	f.t.Cleanup(task.Release)
	task.Reset(n, cdb)
	if f.target.Prepare(task) {
		f.t.Fatalf("refused: % x", task.Sense())
	}
	return task
}

// The tasks of a logical unit are those in its task set, whatever LUN it has by then.
func TestNexus_AbortTasks(t *testing.T) {
	f := newFixture(t)
	other := newViewedLU(t, 1)
	if err := f.target.AddLU(1, other); err != nil {
		t.Fatal(err)
	}
	f.good(reportLUNs, nil)
	n := f.nexus
	n.AbortTasks(f.lu, nil) // no session yet: nothing to abort
	r := &recorder{}
	n.SetTaskAborter(r)
	waits, ended, new := f.prepared(n, testUnitReady), f.prepared(n, testUnitReady), NewTask(&f.pool)
	f.target.Execute(t.Context(), ended)
	new.Reset(n, testUnitReady)
	f.reconfigure(func(c *Configuration) { c.Units = map[uint16]*LogicalUnit{0: other, 5: f.lu} })
	f.takeAttentions(n)
	elsewhere := f.prepared(n, testUnitReady) // LUN 0 is the other logical unit now
	r.tasks = []*Task{waits, ended, new, elsewhere}
	by := NewTask(&f.pool)
	n.AbortTasks(f.lu, by)
	if !slices.Equal(r.aborted, []*Task{waits}) || r.except != by {
		t.Errorf("aborted %d tasks, except %p", len(r.aborted), r.except)
	}
	n.AbortTasks(other, by)
	if !slices.Equal(r.aborted, []*Task{elsewhere}) {
		t.Errorf("aborted %d tasks of the other logical unit", len(r.aborted))
	}
}
