package scsi

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"odx/internal/kit/must"
	"odx/target/qos"
	"odx/target/scsi/sense"
)

// commandOf returns a task with a command that Prepare has passed, and its data.
func (f *fixture) commandOf(n *Nexus, attribute int, cdb []byte) *Task {
	f.t.Helper()
	task := NewTask(&f.pool)
	f.t.Cleanup(task.Release)
	f.prepare(task, n, attribute, cdb)
	return task
}

func (f *fixture) prepare(task *Task, n *Nexus, attribute int, cdb []byte) {
	f.t.Helper()
	task.Reset(n, cdb)
	task.Attribute, task.ExpectedOut, task.ExpectedIn = attribute, 1<<30, 1<<30
	if cdb[0] == opWriteSame16 {
		task.ExpectedOut = 0
	}
	if f.target.Prepare(task) {
		f.t.Fatalf("refused: % x", task.Sense())
	}
	if task.Wanted > 0 {
		task.AllocDataOut(int(task.Wanted))
	}
}

// start runs a task as a transport does: at once, or when it is woken. The channel is
// closed once it has ended.
func (f *fixture) start(task *Task) (ended chan struct{}) {
	ended = make(chan struct{})
	run := func() {
		f.target.Execute(context.Background(), task)
		close(ended)
	}
	if task.Enabled() || task.WhenEnabled(func() { go run() }) {
		run()
	}
	return ended
}

// after waits until a task has ended, and checks when.
func after(t *testing.T, began time.Time, ended chan struct{}, want time.Duration) {
	t.Helper()
	<-ended
	if took := time.Since(began); took < want-time.Millisecond || took > want+time.Millisecond {
		t.Errorf("ended after %s, want %s", took, want)
	}
}

var (
	oneASecond = qos.Limits{Operations: 1, OperationsBurst: 1}
	readBlock  = cdb10(0x28, 0, 0, 1)
)

// longCDB returns a CDB without further fields.
func longCDB(code, action byte, length int) []byte {
	cdb := make([]byte, length)
	cdb[0], cdb[1] = code, action
	return cdb
}

// A limit holds for commands that access the medium, and for no others: those that tell
// whether a path works, and who may use it, are not delayed.
func TestLimits_Commands(t *testing.T) {
	for name, tt := range map[string]struct {
		cdb     []byte
		limited bool
	}{
		"READ":              {readBlock, true},
		"WRITE":             {cdb10(0x2A, 0, 0, 1), true},
		"VERIFY":            {cdb10(0x2F, 0, 0, 1), true},
		"UNMAP":             {unmapCDB(0), true},
		"WRITE SAME":        {cdb16(0x93, writeSameNDOB, 0, 1), true},
		"SYNCHRONIZE CACHE": {cdb10(0x35, 0, 0, 0), true},
		"TEST UNIT READY":   {testUnitReady, false},
		"INQUIRY":           {inquiryCDB(0, 0, 96), false},
		"REPORT LUNS":       {reportLUNs, false},
		"READ CAPACITY(16)": {longCDB(0x9E, 0x10, 16), false},
		"READ KEYS":         {longCDB(opPersistentReserveIn, 0, 10), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.lu.SetLimits(oneASecond, nil)
				f.good(readBlock, nil) // the burst
				began := time.Now()
				want := time.Duration(0)
				if tt.limited {
					want = time.Second
				}
				after(t, began, f.start(f.commandOf(f.nexus, attributeSimple, tt.cdb)), want)
			})
		})
	}
}

// Operations and bytes, of a logical unit, of an initiator over its LUNs and sessions, and
// of a logical unit for an initiator: the narrowest one decides, alone and together, within
// 5 %.
func TestLimits_Rates(t *testing.T) {
	const block, seconds, depth = 4096, 20, 16
	a, b := "iqn.2026-11.example.initiator:a", "iqn.2026-11.example.initiator:b"
	for name, tt := range map[string]struct {
		lun, ofInitiator, initiator qos.Limits // of a in both latter cases
		wantA, wantB                float64    // commands a second; 0: not limited
	}{
		"operations of a LUN":         {lun: qos.Limits{Operations: 200}, wantA: 100, wantB: 100},
		"bytes of a LUN":              {lun: qos.Limits{Bytes: 200 * block}, wantA: 100, wantB: 100},
		"a LUN for an initiator":      {ofInitiator: qos.Limits{Operations: 50}, wantA: 50},
		"an initiator":                {initiator: qos.Limits{Bytes: 50 * block}, wantA: 50},
		"operations and bytes":        {lun: qos.Limits{Operations: 1000, Bytes: 200 * block}, wantA: 100, wantB: 100},
		"a LUN, and an initiator":     {lun: qos.Limits{Operations: 200}, initiator: qos.Limits{Operations: 40}, wantA: 40, wantB: 160},
		"all three, with two of them": {qos.Limits{Operations: 300, Bytes: 500 * block}, qos.Limits{Operations: 90, Bytes: 60 * block}, qos.Limits{Operations: 70}, 60, 240},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				initiators := new(qos.Initiators)
				of := func(l qos.Limits) func(string) qos.Limits {
					return func(name string) qos.Limits {
						if name == a {
							return l
						}
						return qos.Limits{}
					}
				}
				initiators.Set(of(tt.initiator))
				f := newFixture(t)
				f.target = NewTarget(TargetConfig{Name: f.target.Name(), Initiators: initiators, PortGroups: []PortGroup{{Tag: 1}}})
				if err := f.target.AddLU(0, newViewedLU(t, 1)); err != nil {
					t.Fatal(err)
				}
				f.target.LU(0).SetLimits(tt.lun, of(tt.ofInitiator))
				counts := map[string]*float64{a: new(float64), b: new(float64)}
				var mu sync.Mutex
				var running sync.WaitGroup
				end := make(chan struct{})
				for _, name := range []string{a, a, b, b} { // two sessions each
					if name == b && tt.wantB == 0 {
						continue
					}
					n := f.attach(name)
					for range depth {
						running.Go(func() {
							task := NewTask(&f.pool)
							defer task.Release()
							for {
								f.prepare(task, n, attributeSimple, cdb10(0x28, 0, 0, block/512))
								<-f.start(task)
								mu.Lock()
								*counts[name]++
								mu.Unlock()
								select {
								case <-end:
									return
								case <-time.After(time.Millisecond): // what the initiator takes
								}
							}
						})
					}
				}
				time.Sleep(time.Second) // the bursts
				mu.Lock()
				*counts[a], *counts[b] = 0, 0
				mu.Unlock()
				time.Sleep(seconds * time.Second)
				mu.Lock()
				for name, want := range map[string]float64{a: tt.wantA, b: tt.wantB} {
					if got := *counts[name] / seconds; want != 0 && math.Abs(got-want) > 0.05*want {
						t.Errorf("%s: %.1f a second, want %.1f", name, got, want)
					}
				}
				mu.Unlock()
				close(end)
				f.target.LiftLimits()
				running.Wait()
			})
		})
	}
}

// A task that limits hold back can be aborted at once, takes nothing then, and lets those
// after it pass.
func TestLimits_Abort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.lu.SetLimits(oneASecond, nil)
		f.good(readBlock, nil)
		began := time.Now()
		var parked []*Task
		for range 10 {
			task := f.commandOf(f.nexus, attributeSimple, readBlock)
			parked = append(parked, task)
			if task.WhenEnabled(func() { t.Error("an aborted task is woken") }) {
				t.Fatal("it is not held back")
			}
		}
		last := f.start(f.commandOf(f.nexus, attributeSimple, readBlock))
		for i, task := range parked {
			if i%2 == 0 {
				task.Leave()
			} else {
				task.Release()
			}
		}
		if f.lu.limiter.Waiting() != 1 {
			t.Errorf("%d wait", f.lu.limiter.Waiting())
		}
		after(t, began, last, time.Second)
		time.Sleep(time.Hour)
		if f.lu.tasks.state.Load() != 0 {
			t.Error("the task set is not empty")
		}
	})
}

// The order of tasks stays: an ORDERED task waits for an older one that limits hold back,
// and younger ones wait for it; a HEAD OF QUEUE task is held back before others.
func TestLimits_Order(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.lu.SetLimits(oneASecond, nil)
		f.good(readBlock, nil)
		var mu sync.Mutex
		var order []string
		var all sync.WaitGroup
		for _, c := range []struct {
			name      string
			attribute int
		}{{"simple", attributeSimple}, {"ordered", attributeOrdered}, {"ordered too", attributeOrdered}, {"later", attributeSimple}, {"head", AttributeHeadOfQueue}} {
			ended := f.start(f.commandOf(f.nexus, c.attribute, readBlock))
			all.Go(func() {
				<-ended
				mu.Lock()
				defer mu.Unlock()
				order = append(order, c.name)
			})
		}
		all.Wait()
		if want := []string{"head", "simple", "ordered", "ordered too", "later"}; !slices.Equal(order, want) {
			t.Errorf("ended in the order %v, want %v", order, want)
		}
	})
}

// Commands that wait follow new limits at once.
func TestLimits_Change(t *testing.T) {
	for name, lift := range map[string]func(f *fixture){
		"a wider limit": func(f *fixture) { f.lu.SetLimits(qos.Limits{Operations: 1 << 40}, nil) },
		"no limit":      func(f *fixture) { f.lu.SetLimits(qos.Limits{}, nil) },
		"the end":       func(f *fixture) { f.target.LiftLimits() },
		"the LUN leaves": func(f *fixture) {
			f.reconfigure(func(c *Configuration) { c.Units = nil })
			must.Succeed(f.t, f.lu.Drain(context.Background()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.lu.SetLimits(qos.Limits{Operations: 1, OperationsBurst: 1, Bytes: 1}, func(string) qos.Limits { return qos.Limits{} })
				f.good(readBlock, nil)
				began := time.Now()
				var ended []chan struct{}
				for range 100 {
					ended = append(ended, f.start(f.commandOf(f.nexus, attributeSimple, readBlock)))
				}
				time.Sleep(100 * time.Millisecond)
				lift(f)
				for _, e := range ended {
					after(t, began, e, 100*time.Millisecond)
				}
			})
		})
	}
}

// A copy waits for no more than two seconds, whatever waits before it, and what it is
// charged delays others by no more than that.
func TestLimits_Copy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		const opCopy = 0x83
		err := f.lu.Install(opCopy, 0x10, Operation{Name: "POPULATE TOKEN", Usage: longCDB(opCopy, 0x10, 16), Kind: KindCopy,
			Execute: func(_ context.Context, t *Task) error {
				t.Account().Charge(qos.Cost{Operations: 1000, Bytes: 1 << 40})
				t.Account().AddBytes(KindCopy, 1<<30)
				return nil
			}})
		must.Succeed(t, err)
		f.lu.SetLimits(oneASecond, nil)
		f.good(readBlock, nil)
		began := time.Now()
		for range 20 {
			f.start(f.commandOf(f.nexus, attributeSimple, readBlock))
		}
		copied := f.start(f.commandOf(f.nexus, attributeSimple, longCDB(opCopy, 0x10, 16)))
		after(t, began, copied, maxCopyWait)
		if s := f.lu.Stats().Total[KindCopy]; s.Commands != 1 || s.Bytes != 1<<30 {
			t.Errorf("%d copies of %d bytes", s.Commands, s.Bytes)
		}
		f.target.LiftLimits()
		synctest.Wait()
		f.lu.SetLimits(qos.Limits{Operations: 100, OperationsBurst: 1}, nil)
		time.Sleep(time.Hour)
		began = time.Now()
		<-f.start(f.commandOf(f.nexus, attributeSimple, longCDB(opCopy, 0x10, 16)))
		after(t, began, f.start(f.commandOf(f.nexus, attributeSimple, readBlock)), 2*time.Second+10*time.Millisecond)
	})
}

// Execute waits for callers that do not check Enabled, as long as its context allows. A
// command in pieces passes limits once.
func TestLimits_Execute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *LUConfig) { c.Volume = newMemVolume(3 * StreamPiece) })
		f.lu.SetLimits(oneASecond, nil)
		began := time.Now()
		for range 3 {
			f.good(cdb10(0x28, 0, 0, 3*StreamPiece/512), nil)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("three commands took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		task := f.commandOf(f.nexus, attributeSimple, readBlock)
		f.target.Execute(ctx, task)
		if _, asc := decodeSense(t, task.Sense()); asc != sense.ASCCommandTimeoutDuringProcessing || f.lu.limiter.Waiting() != 0 {
			t.Errorf("ended with %s, %d wait", asc, f.lu.limiter.Waiting())
		}
	})
}

// Commands that limits let pass allocate nothing.
func TestLimits_Allocations(t *testing.T) {
	f := newFixture(t)
	f.lu.SetLimits(qos.Limits{Operations: 1 << 40, Bytes: 1 << 40}, func(string) qos.Limits { return qos.Limits{Operations: 1 << 40} })
	task := NewTask(&f.pool)
	defer task.Release()
	allocs := testing.AllocsPerRun(200, func() {
		task.Reset(f.nexus, readBlock)
		if f.target.Prepare(task) || !task.Enabled() {
			t.Fatal("refused or held back")
		}
		f.target.Execute(context.Background(), task)
	})
	if allocs >= 1 {
		t.Errorf("%.1f allocations for one command", allocs)
	}
}

// Tasks of all attributes are held back, aborted and run concurrently, while limits change:
// each ends, and none is woken once it has left.
func TestLimits_Concurrent(t *testing.T) {
	f := newFixture(t)
	end := make(chan struct{})
	var changing, running sync.WaitGroup
	changing.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-end:
				f.target.LiftLimits()
				return
			default:
			}
			f.lu.SetLimits(qos.Limits{Operations: 20_000 * (i % 3)}, func(string) qos.Limits { return qos.Limits{Bytes: 10_000_000 * (i % 2)} })
		}
	})
	for i := range 6 {
		n := f.target.Attach(NexusID{InitiatorName: "iqn.concurrent", ISID: [6]byte{byte(i)}})
		f.takeAttentions(n)
		running.Go(func() {
			task := NewTask(&f.pool)
			for k := range 400 {
				f.prepare(task, n, []int{attributeSimple, attributeSimple, attributeOrdered, AttributeHeadOfQueue}[(i+k)%4], readBlock)
				woken := make(chan struct{})
				left := new(atomic.Bool)
				waits := !task.Enabled() && !task.WhenEnabled(func() {
					if left.Load() {
						t.Error("a task that has left is woken")
					}
					close(woken)
				})
				if waits && k%3 == 0 {
					task.Leave()
					left.Store(true)
					task.Release()
					continue
				}
				if waits {
					<-woken
				}
				f.target.Execute(context.Background(), task)
				task.Release()
			}
		})
	}
	running.Wait()
	close(end)
	changing.Wait()
	if f.lu.tasks.state.Load() != 0 || f.lu.limiter.Waiting() != 0 {
		t.Errorf("task set %d, %d wait", f.lu.tasks.state.Load(), f.lu.limiter.Waiting())
	}
}
