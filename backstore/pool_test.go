package backstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/backstore/meta"
	"odx/backstore/meta/pebblekv"
	"odx/backstore/vfs/rados"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// pool is a pool in memory, with a clock that a test sets, of a store with options.
type pool struct {
	twin  *rados.Twin
	clock *atomic.Int64
	o     Options
}

func newPool(rng *rand.Rand) pool {
	o := drawOptions(rng)
	o.Engine = []meta.Engine{pebblekv.Engine(), meta.Tables()}[rng.IntN(2)]
	clock := new(atomic.Int64)
	return pool{rados.NewTwin(func() time.Duration { return time.Duration(clock.Load()) }), clock, o}
}

// options are those of a store that a client of the pool opens.
func (p pool) options(c *rados.Client) Options {
	o := p.o
	o.Dir, o.Log, o.FS, o.Shared, o.tuning.reserveBytes = "/store", logs.Discard(), rados.New(c), true, 1<<20
	return o
}

// TestPool_WriteOut ends the process after WriteOut: in a pool, unlike on a disk whose kernel goes
// on, only what is durable is there for the next one.
func TestPool_WriteOut(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	p := newPool(rng)
	s, err := Open(t.Context(), p.options(p.twin.Client()))
	must.Succeed(t, err)
	must.Succeed(t, s.Flush(t.Context()))
	for n := range 10 {
		record := Record{Key: []byte("key"), Value: fmt.Append(nil, n)}
		must.Succeed(t, s.PutRecords(t.Context(), record))
		if !s.Unwritten() {
			t.Error("a change that is not durable counts as written")
		}
		must.Succeed(t, s.WriteOut(t.Context()))
		if s.Unwritten() {
			t.Error("a change that was written out counts as not written")
		}
		crashed := p
		crashed.twin = p.twin.CrashClone(rng)
		next, err := Open(t.Context(), crashed.options(crashed.twin.Client()))
		must.Succeed(t, err)
		if got, err := next.GetRecord(record.Key); err != nil || string(got) != string(record.Value) {
			t.Errorf("the record is %q, %v, want %q", got, err, record.Value)
		}
		must.Succeed(t, next.Close())
	}
	must.Succeed(t, s.Close())
}

// TestPool_Linearizable is TestLinearizable in a pool, with Pebble.
func TestPool_Linearizable(t *testing.T) {
	forSeeds(t, 1, func(t *testing.T, seed uint64) {
		for what, size := range map[string]struct{ calls, sectors int }{"blocks": {400, blockSectors}, "window": {100, windowSectors}} {
			t.Run(what, func(t *testing.T) {
				p := newPool(rand.New(rand.NewPCG(seed, 5)))
				p.o = Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, Engine: pebblekv.Engine()}
				p.twin.SetHook(func(string, *rados.Change) error { runtime.Gosched(); return nil })
				s, err := Open(t.Context(), p.options(p.twin.Client()))
				must.Succeed(t, err)
				checkLinear(t, s, seed, size.calls, size.sectors)
			})
		}
	})
}

// TestPool_Crashes runs random histories of stores in a pool. At any change that is sent the
// process ends: of what it has sent, some has arrived. Another one opens the store.
func TestPool_Crashes(t *testing.T) {
	forSeeds(t, sample.Size[uint64](1, 1, 4), func(t *testing.T, seed uint64) {
		rng, cutRand := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
		p := newPool(rng)
		t.Logf("metadata in %v, %d KiB units", p.o.Engine.Kind(), p.o.DedupUnit>>10)
		h := newHistory(t, rng, func() (*Store, error) { return Open(context.Background(), p.options(p.twin.Client())) })
		var mu sync.Mutex // guards cuts and cutRand
		var cuts []crashedPool
		recovered := 0
		p.twin.SetHook(func(string, *rados.Change) error {
			mu.Lock()
			defer mu.Unlock()
			if len(cuts) < 2 && cutRand.IntN(60) == 0 {
				crashed := p
				crashed.twin = p.twin.CrashClone(cutRand)
				cuts = append(cuts, crashedPool{crashed, h.possible()})
			}
			return nil
		})
		for range 60 {
			h.step()
			mu.Lock()
			now := cuts
			cuts = nil
			mu.Unlock()
			for _, c := range now {
				recovered++
				if problem, _ := opens(c.options(c.twin.Client()), c.states); problem != "" {
					h.fatalf("after a crash: %s", problem)
				}
			}
		}
		p.twin.SetHook(nil)
		h.verify()
		h.reopen()
		h.verify()
		must.Succeed(t, h.store.Close())
		t.Logf("%d crashes", recovered)
	})
}

// crashedPool is a pool after a crash, with the states that the store in it may have.
type crashedPool struct {
	pool
	states []*model
}

// TestPool_TakeOver cuts the owner of a store off within random histories; another process
// takes the store over when the lock has ended. Then all that the first one has sent arrives,
// and whatever it still does: the store of its successor is what it was, and nothing is
// acknowledged to the first one.
func TestPool_TakeOver(t *testing.T) {
	forSeeds(t, sample.Size[uint64](2, 8, 19), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := newPool(rng)
		var client *rados.Client
		open := func() (*Store, error) {
			client = p.twin.Client()
			return Open(context.Background(), p.options(client))
		}
		h := newHistory(t, rng, open)
		for range 4 {
			for range 1 + rng.IntN(12) {
				h.step()
			}
			states := h.possible()
			before, zombie := client, h.store
			before.Cut()
			write := make(chan error)
			go func() { // it does not know yet
				v, err := zombie.Volume("a")
				if err == nil {
					err = v.WriteAt(context.Background(), content([]uint32{999999}), 0)
				}
				if err == nil {
					err = zombie.Flush(context.Background())
				}
				write <- err
			}()
			p.clock.Add(int64(5 * time.Second))
			h.openStore()
			found, err := readModel(h.store)
			must.Succeed(t, err)
			problem := ""
			for i, m := range states {
				if problem = m.differs(found, states[min(i+1, len(states)-1)]); problem == "" {
					break
				}
			}
			if problem != "" {
				h.fatalf("after the take-over: %s", problem)
			}
			h.mu.Lock()
			h.states, h.kept = []*model{found}, 0
			h.mu.Unlock()
			before.Deliver()
			h.verify()
			if err := <-write; err == nil {
				h.fatalf("a write of the first owner was acknowledged")
			}
			if zombie.Close() == nil {
				h.fatalf("the first owner has closed the store as if it were its own")
			}
			before.Deliver()
			h.step()
			h.verify()
		}
		h.reopen()
		h.verify()
		must.Succeed(t, h.store.Close())
		t.Logf("metadata in %v, %d late changes refused", p.o.Engine.Kind(), p.twin.Refused())
	})
}
