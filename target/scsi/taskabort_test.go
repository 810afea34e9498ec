package scsi

import (
	"testing"
)

// lunRecorder notes which of some LUNs it was asked to abort.
type lunRecorder struct {
	luns   [][8]byte
	want   map[[8]byte]bool
	except *Task
}

func (r *lunRecorder) AbortTasks(match func([8]byte) bool, except *Task) {
	r.want, r.except = map[[8]byte]bool{}, except
	for _, lun := range r.luns {
		r.want[lun] = match(lun)
	}
}

// The LUNs of a logical unit are those of the nexus whose tasks end, in every form that
// SAM-5 4.7 gives them.
func TestNexus_AbortTasks(t *testing.T) {
	f := newFixture(t)
	n := f.target.Attach(NexusID{InitiatorName: "other"})
	n.AbortTasks(f.lu, nil) // no session yet: nothing to abort
	zero, flat, other := [8]byte{}, [8]byte{0x40}, [8]byte{1: 1}
	r := &lunRecorder{luns: [][8]byte{zero, flat, other}}
	n.SetTaskAborter(r)
	task := NewTask(&f.pool)
	n.AbortTasks(f.lu, task)
	if !r.want[zero] || !r.want[flat] || r.want[other] || r.except != task {
		t.Errorf("aborted %v except %p", r.want, r.except)
	}
	f.target.Detach(n)
	n.AbortTasks(f.lu, nil)
	if r.want[zero] {
		t.Error("a nexus that is gone still has the logical unit")
	}
}
