package scsi

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"odx/target/scsi/sense"
)

// arrive prepares a READ with a task attribute, which then stands in the task
// set until Leave.
func (f *fixture) arrive(n *Nexus, attribute int) (task *Task, refused byte) {
	f.t.Helper()
	task = NewTask(&f.pool)
	task.Reset(n, cdb10(0x28, 0, 0, 1))
	task.Attribute = attribute
	if f.target.Prepare(task) {
		return nil, task.Result
	}
	return task, 0
}

var attributeLetters = map[string]int{"S": attributeSimple, "U": attributeUntagged, "O": attributeOrdered, "H": AttributeHeadOfQueue}

// Each case is a sequence of events: a letter with a number is the arrival of a task,
// "-" with it its end; "=" lists the tasks that may run then, in the order of arrival.
func TestTaskSet_Order(t *testing.T) {
	for name, course := range map[string]string{
		"simple tasks run concurrently":            "S1 U2 S3 =S1 U2 S3 -S1 =U2 S3 -U2 -S3 =",
		"an ordered task alone":                    "O1 =O1 -O1 =",
		"ordered waits for older ones":             "S1 S2 O3 =S1 S2 -S2 =S1 -S1 =O3 -O3 =",
		"simple waits for an older ordered one":    "S1 O2 S3 S4 =S1 -S1 =O2 -O2 =S3 S4",
		"ordered after ordered":                    "O1 O2 S3 O4 =O1 -O1 =O2 -O2 =S3 -S3 =O4",
		"head of queue runs at once":               "S1 O2 S3 H4 =S1 H4 -H4 =S1 -S1 =O2",
		"none starts during head of queue":         "H1 S2 O3 H4 =H1 H4 -H1 =H4 -H4 =S2 -S2 =O3",
		"running tasks and head of queue":          "S1 H2 =S1 H2 -S1 =H2 -H2 =",
		"an aborted ordered task lets others go":   "S1 O2 S3 =S1 -O2 =S1 S3",
		"an aborted simple task lets ordered go":   "S1 O2 -S1 =O2",
		"ordered mode ends with its last task":     "O1 S2 -O1 -S2 S3 S4 =S3 S4",
		"counted tasks are older than all entries": "S1 S2 O3 S4 -S1 =S2 -S2 =O3 -O3 =S4 S5 =S4 S5",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			nexuses := []*Nexus{f.nexus, f.attach("iqn.2026-11.example.initiator:b")} // one task set for all
			tasks := make(map[string]*Task)
			var order, want []string
			checking := false
			check := func() {
				var enabled []string
				for _, name := range order {
					if tasks[name].Enabled() {
						enabled = append(enabled, name)
					}
				}
				if got, want := strings.Join(enabled, " "), strings.Join(want, " "); checking && got != want {
					t.Fatalf("enabled: %q, want %q", got, want)
				}
				checking, want = false, nil
			}
			for _, word := range strings.Fields(course) {
				rest, begins := strings.CutPrefix(word, "=")
				_, known := tasks[rest]
				switch {
				case begins:
					checking = true
					if rest != "" {
						want = append(want, rest)
					}
				case strings.HasPrefix(word, "-"):
					check()
					tasks[word[1:]].Leave()
					delete(tasks, word[1:])
					order = strings.Fields(strings.ReplaceAll(" "+strings.Join(order, " ")+" ", " "+word[1:]+" ", " "))
				case checking && known:
					want = append(want, word)
				default:
					check()
					task, _ := f.arrive(nexuses[len(order)%2], attributeLetters[word[:1]])
					tasks[word], order = task, append(order, word)
				}
			}
			check()
		})
	}
}

// TestTaskSet_Model compares the task set with the rules of SAM-5
// 8.6 as they are written there.
func TestTaskSet_Model(t *testing.T) {
	type modelled struct {
		task      *Task
		attribute int
		enabled   bool
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(t)
		var model []*modelled
		settle := func() {
			head := false
			for _, m := range model {
				head = head || m.attribute == AttributeHeadOfQueue
			}
			olderOrdered := false
			for i, m := range model {
				switch m.attribute {
				case AttributeHeadOfQueue:
					m.enabled = true
				case attributeSimple:
					m.enabled = m.enabled || !head && !olderOrdered
				case attributeOrdered:
					m.enabled = m.enabled || !head && i == 0
					olderOrdered = true
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				settle()
				for i, m := range model {
					if m.task.Enabled() != m.enabled {
						rt.Fatalf("task %d of %d, attribute %d: enabled %t, want %t", i, len(model), m.attribute, m.task.Enabled(), m.enabled)
					}
				}
				if len(model) == 0 && (f.lu.tasks.state.Load() != 0 || f.nexus.unit([8]byte{}).tasks.Load() != 0) {
					rt.Fatal("an empty task set counts tasks")
				}
			},
			"arrive": func(rt *rapid.T) {
				attribute := rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(rt, "attribute")
				task, _ := f.arrive(f.nexus, attribute)
				model = append(model, &modelled{task, attribute, false})
			},
			"leave": func(rt *rapid.T) {
				if len(model) == 0 {
					rt.Skip()
				}
				i := rapid.IntRange(0, len(model)-1).Draw(rt, "task")
				model[i].task.Leave()
				model[i].task.Leave() // makes no difference
				model = append(model[:i], model[i+1:]...)
			},
		})
	})
}

func TestTaskSet_RefusedAttributes(t *testing.T) {
	f := newFixture(t)
	for attribute, want := range map[int]sense.ASC{attributeACA: sense.ASCInvalidMessageError, 5: sense.ASCInvalidFieldInCommandIU, 7: sense.ASCInvalidFieldInCommandIU} {
		task := NewTask(&f.pool)
		task.Reset(f.nexus, testUnitReady)
		task.Attribute = attribute
		if !f.target.Prepare(task) {
			t.Fatalf("attribute %d was accepted", attribute)
		}
		if key, asc := decodeSense(t, task.Sense()); key != sense.KeyIllegalRequest || asc != want {
			t.Errorf("attribute %d: %s, %s", attribute, key, asc)
		}
	}
	f.good(testUnitReady, nil)
	if f.nexus.unit([8]byte{}).tasks.Load() != 0 {
		t.Error("a refused task is counted")
	}
}

// A full task set refuses: with TASK SET FULL who has tasks in it, with BUSY who
// has none. Commands that are answered in any case go on.
func TestTaskSet_Full(t *testing.T) {
	for _, attribute := range []int{attributeSimple, attributeOrdered} {
		t.Run(fmt.Sprint(attribute), func(t *testing.T) {
			f := newFixture(t)
			var tasks []*Task
			last := f.attach("iqn.2026-11.example.initiator:last")
			for n := range maxTasks / maxNexusTasks {
				nexus := f.attach(fmt.Sprintf("iqn.2026-11.example.initiator:%d", n))
				for range maxNexusTasks {
					task, refused := f.arrive(nexus, attribute)
					if refused != 0 {
						t.Fatalf("task %d: status %02Xh", len(tasks), refused)
					}
					tasks = append(tasks, task)
				}
				if _, refused := f.arrive(nexus, attributeSimple); refused != StatusTaskSetFull {
					t.Fatalf("one more of the same nexus: status %02Xh", refused)
				}
			}
			// A nexus with few tasks still finds room, until all of that is taken.
			for n := range maxTasks / reservedTasks {
				nexus := f.attach(fmt.Sprintf("iqn.2026-11.example.initiator:few%d", n))
				for range reservedTasks {
					task, refused := f.arrive(nexus, attribute)
					if refused != 0 {
						t.Fatalf("task %d: status %02Xh", len(tasks), refused)
					}
					tasks = append(tasks, task)
				}
				if n > 0 {
					continue
				}
				if _, refused := f.arrive(nexus, attributeSimple); refused != StatusTaskSetFull {
					t.Fatalf("one more of a nexus with few: status %02Xh", refused)
				}
			}
			for _, a := range []int{attributeSimple, attributeOrdered} {
				if _, refused := f.arrive(last, a); refused != StatusBusy {
					t.Errorf("a nexus without tasks: status %02Xh, want BUSY", refused)
				}
			}
			f.on(last, inquiryCDB(0, 0, 96)).wantStatus(t, StatusGood)
			for _, task := range tasks {
				task.Leave()
			}
			f.on(last, testUnitReady).wantStatus(t, StatusGood)
			if state := f.lu.tasks.state.Load(); state != 0 {
				t.Errorf("state %x of an empty task set", state)
			}
		})
	}
}

// A task that waits in Execute can be aborted; the tasks after it continue.
func TestTaskSet_AbortWaitingTask(t *testing.T) {
	f := newFixture(t)
	first, _ := f.arrive(f.nexus, attributeSimple)
	waiting, _ := f.arrive(f.nexus, attributeOrdered)
	after, _ := f.arrive(f.nexus, attributeSimple)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.target.Execute(ctx, waiting)
	if key, asc := decodeSense(t, waiting.Sense()); key != sense.KeyAbortedCommand {
		t.Errorf("%s, %s", key, asc)
	}
	if !after.Enabled() {
		t.Error("the task after the aborted one does not run")
	}
	first.Release() // without Execute
	after.Release()
	woken := make(chan struct{})
	first, _ = f.arrive(f.nexus, attributeOrdered)
	after, _ = f.arrive(f.nexus, attributeSimple)
	if after.WhenEnabled(func() { close(woken) }) {
		t.Fatal("enabled during an ordered task")
	}
	first.Leave()
	<-woken
	after.Leave()
}

// exclusiveVolume notes when an access meets another one. Ordered ones write at
// its second half.
type exclusiveVolume struct {
	*memVolume
	t       *testing.T
	running atomic.Int32
}

func (v *exclusiveVolume) WriteAt(ctx context.Context, p []byte, off int64) error {
	n := v.running.Add(1)
	defer v.running.Add(-1)
	if off >= v.Size()/2 && n != 1 {
		v.t.Error("an ordered task runs concurrently with another")
	}
	if err := v.memVolume.WriteAt(ctx, p, off); err != nil {
		return err
	}
	if off >= v.Size()/2 && v.running.Load() != 1 {
		v.t.Error("another task has started during an ordered one")
	}
	return nil
}

func TestTaskSet_Ordered(t *testing.T) {
	v := &exclusiveVolume{memVolume: newMemVolume(testBlocks * 512), t: t}
	f := newFixture(t, func(c *LUConfig) { c.Volume = v })
	var wg sync.WaitGroup
	for n := range 8 {
		nexus := f.attach(fmt.Sprintf("iqn.2026-11.example.initiator:%d", n))
		wg.Go(func() {
			task := NewTask(&f.pool)
			for i := range 500 {
				attribute, lba := attributeSimple, uint32(n)
				if (i+n)%5 == 0 {
					attribute, lba = attributeOrdered, testBlocks/2+uint32(n)
				}
				task.Reset(nexus, cdb10(0x2A, 0, lba, 1))
				task.Attribute, task.ExpectedOut = attribute, 512
				if f.target.Prepare(task) {
					t.Errorf("refused: % x", task.Sense())
					return
				}
				if i%50 == 7 { // never executed
					task.Release()
					continue
				}
				task.AllocDataOut(512)
				f.target.Execute(context.Background(), task)
				if task.Result != StatusGood {
					t.Errorf("status %02Xh", task.Result)
				}
				task.Release()
			}
		})
	}
	wg.Wait()
	if state := f.lu.tasks.state.Load(); state != 0 {
		t.Errorf("state %x of an empty task set", state)
	}
}

// With QERR 00b a command that fails ends no other.
func TestTaskSet_QERR(t *testing.T) {
	f := newFixture(t)
	other, _ := f.arrive(f.attach("iqn.2026-11.example.initiator:b"), attributeSimple)
	same, _ := f.arrive(f.nexus, attributeSimple)
	f.do(cdb10(0x2F, 0x02, 0, 1), pattern(512, 1)).wantSense(t, sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
	waiting, _ := f.arrive(f.nexus, attributeOrdered)
	for _, task := range []*Task{other, same, waiting} {
		f.target.Execute(t.Context(), task)
		if task.Result != StatusGood {
			t.Errorf("status %02Xh", task.Result)
		}
		task.Release()
	}
}

// A command after one that erases the medium finds the erasure in progress.
func TestTaskSet_Erasure(t *testing.T) {
	f, v, _ := newErasableFixture(t)
	first, _ := f.arrive(f.nexus, attributeSimple)
	erase := NewTask(&f.pool)
	erase.Reset(f.nexus, blockEraseLater)
	if f.target.Prepare(erase) {
		t.Fatal("refused")
	}
	after, _ := f.arrive(f.nexus, attributeSimple)
	if erase.Enabled() || after.Enabled() {
		t.Fatal("the medium is erased during an earlier command")
	}
	f.target.Execute(t.Context(), first)
	if first.Result != StatusGood {
		t.Errorf("status %02Xh", first.Result)
	}
	f.target.Execute(t.Context(), erase)
	<-v.began
	f.target.Execute(t.Context(), after)
	if key, asc := decodeSense(t, after.Sense()); key != sense.KeyNotReady || asc != sense.ASCSanitizeInProgress {
		t.Errorf("%s, %s", key, asc)
	}
	e := f.lu.eraser.current.Load()
	v.end <- nil
	<-e.done
}

// BenchmarkTaskSet is what a SIMPLE task pays for the order of others.
func BenchmarkTaskSet(b *testing.B) {
	f := newFixture(b)
	itl := f.nexus.unit([8]byte{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		task := NewTask(&f.pool)
		task.Reset(f.nexus, testUnitReady)
		task.itl, task.LU = itl, f.lu
		for pb.Next() {
			if err := itl.enterTaskSet(task); err != nil {
				b.Error(err)
			}
			task.Leave()
		}
	})
}
