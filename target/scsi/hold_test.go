package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/target/scsi/sense"
)

// copyOf returns a volume with the same bytes.
func copyOf(v *memVolume) *memVolume {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return &memVolume{data: bytes.Clone(v.data)}
}

// Hold waits for a task that has begun, and for no other; those that come wait for its end,
// without a worker, and begin in their order.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		begun := f.commandOf(f.nexus, attributeSimple, readBlock)
		if !begun.Enabled() {
			t.Fatal("a task does not begin without a hold")
		}
		unasked := f.commandOf(f.nexus, attributeSimple, readBlock) // it waits for its data, for example
		var release func()
		held := make(chan struct{})
		go func() {
			defer close(held)
			var err error
			if release, err = f.lu.Hold(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		select {
		case <-held:
			t.Fatal("Hold does not wait for a task that has begun")
		default:
		}
		if _, err := f.lu.Hold(t.Context()); !errors.Is(err, errHeld) {
			t.Errorf("a second hold: %v", err)
		}
		begun.Leave()
		<-held
		var woken []int
		for i, task := range []*Task{unasked, f.commandOf(f.nexus, AttributeHeadOfQueue, readBlock), f.commandOf(f.nexus, attributeSimple, readBlock)} {
			if task.Enabled() || task.WhenEnabled(func() { woken = append(woken, i) }) {
				t.Errorf("task %d begins", i)
			}
			if i == 1 {
				task.Leave() // aborted
			}
		}
		other := make(chan struct{})
		go func() {
			f.lu.AwaitRelease(t.Context())
			close(other)
		}()
		synctest.Wait()
		select {
		case <-other:
			t.Error("AwaitRelease does not wait")
		default:
		}
		f.good([]byte{opInquiry, 0, 0, 0, 96, 0}, nil)
		release()
		release()
		<-other
		f.lu.AwaitRelease(t.Context())
		if len(woken) != 2 || woken[0] != 0 || woken[1] != 2 {
			t.Errorf("woken: %v, want 0 and 2", woken)
		}
		if !unasked.Enabled() {
			t.Error("a task that was woken is not enabled")
		}
	})
}

// Hold ends with its context, and then nothing is held.
func TestHold_Late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		begun := f.commandOf(f.nexus, attributeSimple, readBlock)
		begun.Enabled()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		waits := make(chan struct{})
		go func() {
			time.Sleep(time.Second / 2)
			task := f.commandOf(f.nexus, attributeSimple, readBlock)
			if task.WhenEnabled(func() { close(waits) }) {
				t.Error("not held")
			}
		}()
		if _, err := f.lu.Hold(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Hold: %v", err)
		}
		<-waits
		begun.Leave()
		if err := f.lu.SetVolume(f.vol); !errors.Is(err, errNotHeld) {
			t.Errorf("SetVolume: %v", err)
		}
	})
}

// A volume that can do less is announced, and commands that it cannot do end even if they
// were prepared before.
func TestSetVolume_Less(t *testing.T) {
	f := newFixture(t)
	orwrite := f.commandOf(f.nexus, attributeSimple, cdb16(opORWrite, 0, 0, 1))
	release, err := f.lu.Hold(t.Context())
	must.Succeed(t, err, f.lu.SetVolume(copyOf(f.vol)))
	if a := (*f.nexus.units.Load())[0].pending.Load(); a {
		t.Error("a unit attention for a volume that can do the same")
	}
	ended := f.start(orwrite)
	must.Succeed(t, f.lu.SetVolume(plainVolume{copyOf(f.vol)}))
	release()
	<-ended
	if key, asc := decodeSense(t, orwrite.Sense()); orwrite.Result != StatusCheckCondition || asc != sense.ASCInvalidCommandOperationCode {
		t.Errorf("ORWRITE to a volume that cannot do it: status %02Xh, %s, %s", orwrite.Result, key, asc)
	}
	f.do(readBlock, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCInquiryDataChanged)
}

// While tasks run, the volume is replaced again and again: each command sees what those
// before it wrote, and nothing is written to a volume that was replaced.
func TestSetVolume_Model(t *testing.T) {
	const writers, blocks = 4, 32
	f := newFixture(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	stop := make(chan struct{})
	done := make(chan struct{}) // offered after each command
	var running sync.WaitGroup
	for w := range writers {
		n := f.attach("iqn.2026-11.example.initiator:" + string(rune('b'+w)))
		running.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			model := make([]uint64, blocks)
			for count := uint64(1); ; count++ {
				select {
				case <-stop:
					return
				case done <- struct{}{}:
				default:
				}
				i := random.IntN(blocks)
				lba := uint32(w*blocks + i)
				if random.IntN(2) == 0 {
					data := make([]byte, 512)
					binary.BigEndian.PutUint64(data, count)
					if r := f.runHeld(request{nexus: n, cdb: cdb10(0x2A, 0, lba, 1), out: data, expectedOut: -1}); r.status != StatusGood {
						t.Errorf("WRITE: status %02Xh, %s, %s", r.status, r.key, r.asc)
						return
					}
					model[i] = count
					continue
				}
				r := f.runHeld(request{nexus: n, cdb: cdb10(0x28, 0, lba, 1)})
				if r.status != StatusGood || binary.BigEndian.Uint64(r.data) != model[i] {
					t.Errorf("LBA %d: status %02Xh, %d, want %d", lba, r.status, binary.BigEndian.Uint64(r.data), model[i])
					return
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	now := f.vol
	for range sample.Size(30, 200, 200) {
		release, err := f.lu.Hold(t.Context())
		must.Succeed(t, err)
		next := copyOf(now)
		must.Succeed(t, f.lu.SetVolume(next))
		before := bytes.Clone(now.data)
		release()
		for range 2 * writers { // commands that began before, and others
			select {
			case <-done:
			case <-ended:
				t.Fatal("all writers have ended")
			}
		}
		if old := copyOf(now); !bytes.Equal(old.data, before) {
			t.Fatal("a volume that was replaced has changed")
		}
		now = next
	}
	close(stop)
	<-ended
	if f.lu.holding.state.Load() != 0 || f.lu.tasks.state.Load() != 0 {
		t.Error("tasks are counted that have left")
	}
}

// runHeld is run, as a transport does that lets a task wait without a goroutine.
func (f *fixture) runHeld(r request) result {
	task := NewTask(&f.pool)
	defer task.Release()
	task.Reset(r.nexus, r.cdb)
	task.ExpectedOut, task.ExpectedIn = uint32(len(r.out)), 1<<32-1
	if !f.target.Prepare(task) {
		if task.Wanted > 0 {
			copy(task.AllocDataOut(int(task.Wanted)), r.out)
		}
		<-f.start(task)
	}
	res := result{status: task.Result, data: bytes.Clone(task.DataIn())}
	if task.Result == StatusCheckCondition {
		res.key, res.asc = decodeSense(f.t, task.Sense())
	}
	return res
}
