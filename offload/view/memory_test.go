package view

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/tokens"
)

// copyMemory is the memory of copies in tests: that of one piece.
const copyMemory = 2 << 20

// patience is how long a test waits for tasks that may wait for each other.
const patience = 30 * time.Second

// locksOf returns the names of the locks of a stack and of the views below it that are held.
func locksOf(s *Stack) (held []string) {
	if s.gate.sem.TryAcquire(math.MaxInt64) {
		s.gate.open()
	} else {
		held = append(held, "gate")
	}
	return append(held, regionsOf(s.Device)...)
}

// regionsOf returns the names of the region locks of d and below that are held.
func regionsOf(d Device) (held []string) {
	check := func(name string, r *regions, below ...Device) {
		for i := range r {
			if !r[i].TryLock() {
				held = append(held, fmt.Sprint(name, " region ", i))
				continue
			}
			r[i].Unlock()
		}
		for _, d := range below {
			held = append(held, regionsOf(d)...)
		}
	}
	switch v := d.(type) {
	case *partition:
		held = regionsOf(v.of)
	case *stripe:
		for _, leg := range v.legs {
			held = append(held, regionsOf(leg)...)
		}
	case *Mirror:
		check("mirror", &v.regions)
		for _, leg := range v.Legs {
			held = append(held, regionsOf(leg.Device)...)
		}
	case *Cache:
		check("cache", &v.regions, v.of)
	case *Verify:
		check("verify", &v.regions, v.of)
	case *Origin:
		check("origin", &v.regions, v.Of)
	}
	return held
}

// movingSize is the size of the views of movingViews.
const movingSize = 4 << 20

// movingViews make views that move bytes in a write by token and for a token, because a
// volume below is outside the store.
var movingViews = map[string]struct {
	make func(t *testing.T, b *bed) Device
	// also are the other accesses that move bytes.
	also []string
}{
	"mirror": {func(t *testing.T, b *bed) Device { return b.foreignMirror(t) }, nil},
	"stripe": {func(t *testing.T, b *bed) Device {
		return stripeOf(t, 64<<10, b.base(b.volume(t, movingSize/2)), b.base(b.outside(movingSize/2)))
	}, nil},
	"write-back cache": {func(t *testing.T, b *bed) Device { return b.cache(b.foreignMirror(t), true, 64) }, nil},
	"verify":           {func(t *testing.T, b *bed) Device { return b.verify(t, b.foreignMirror(t)) }, nil},
	"origin":           {func(t *testing.T, b *bed) Device { return b.foreignOrigin(t) }, changes},
	"partition of an origin": {func(t *testing.T, b *bed) Device {
		p, err := NewPartition(b.origin(t, b.base(b.outside(movingSize+1<<20))), 1<<20, movingSize)
		must.Succeed(t, err)
		return p
	}, changes},
	"mirror of an origin": {func(t *testing.T, b *bed) Device {
		m := b.mirror(t, b.foreignOrigin(t), b.base(b.volume(t, movingSize)))
		m.resyncs.Wait()
		return m
	}, changes},
	"write-through cache over an origin": {func(t *testing.T, b *bed) Device { return b.cache(b.foreignOrigin(t), false, 64) }, changes},
	"write-back cache over an origin": {func(t *testing.T, b *bed) Device { return b.cache(b.foreignOrigin(t), true, 2) },
		append(changes, "SYNCHRONIZE CACHE")},
	"verify over caches over origins": {func(t *testing.T, b *bed) Device {
		leg := func() Device { return b.cache(b.origin(t, b.base(b.outside(movingSize/2))), true, 2) }
		return b.verify(t, stripeOf(t, 64<<10, leg(), leg()))
	}, changes},
	"origin of an origin": {func(t *testing.T, b *bed) Device { return b.origin(t, b.foreignOrigin(t)) }, changes},
}

// changes are the accesses that write.
var changes = []string{"WRITE", "UNMAP", "COMPARE AND WRITE"}

// foreignMirror returns a mirror with a leg outside the store, in sync.
func (b *bed) foreignMirror(t *testing.T) *Mirror {
	m := b.mirror(t, b.base(b.volume(t, movingSize)), b.base(b.outside(movingSize)))
	m.resyncs.Wait()
	return m
}

// foreignOrigin returns an origin outside the store.
func (b *bed) foreignOrigin(t *testing.T) *Origin {
	return b.origin(t, b.base(b.outside(movingSize)))
}

// accesses are by name. The ranges of those that write are different chunks of an origin,
// but in the same regions.
var accesses = map[string]func(ctx context.Context, b *bed, s *Stack, token *tokens.Token) error{
	"WRITE USING TOKEN": func(ctx context.Context, b *bed, s *Stack, token *tokens.Token) error {
		_, err := b.manager.OffloadWrite(ctx, token, 0, offload.Destination{Volume: s, BlockLength: 512}, []blockdev.Range{{Length: 512 << 10}}, tokens.WriteOptions{})
		return err
	},
	"POPULATE TOKEN": func(ctx context.Context, b *bed, s *Stack, _ *tokens.Token) error {
		_, err := b.manager.OffloadRead(ctx, tokens.Source{Volume: s, LU: tokens.LU{BlockLength: 512}}, []blockdev.Range{{Length: 512 << 10}}, tokens.ReadOptions{})
		return err
	},
	"EXTENDED COPY": func(ctx context.Context, b *bed, s *Stack, _ *tokens.Token) error {
		return b.manager.Engine().Copy(ctx, b.outside(512<<10), 0, s, 0, 512<<10, func(int64) {})
	},
	"WRITE": func(ctx context.Context, _ *bed, s *Stack, _ *tokens.Token) error {
		return s.WriteAt(ctx, pattern(3, 128<<10), 512<<10)
	},
	"UNMAP": func(ctx context.Context, _ *bed, s *Stack, _ *tokens.Token) error {
		return s.Unmap(ctx, 640<<10, 128<<10)
	},
	"COMPARE AND WRITE": func(ctx context.Context, _ *bed, s *Stack, _ *tokens.Token) error {
		return s.Update(ctx, 768<<10, 512, func(p []byte) { p[0]++ })
	},
	"READ": func(ctx context.Context, _ *bed, s *Stack, _ *tokens.Token) error {
		return s.ReadAt(ctx, make([]byte, 128<<10), 0)
	},
	"SYNCHRONIZE CACHE": func(ctx context.Context, _ *bed, s *Stack, _ *tokens.Token) error { return s.Flush(ctx) },
}

// copyingAccesses are those that move bytes of all movingViews.
var copyingAccesses = []string{"WRITE USING TOKEN", "POPULATE TOKEN", "EXTENDED COPY"}

// withoutMemory calls do while another task has all memory of copies, and reports whether
// do waits for that, which it must do without a lock. Then it gives the memory back, and do
// has to succeed.
func (b *bed) withoutMemory(t *testing.T, s *Stack, do func() error) (waited bool) {
	t.Helper()
	done := make(chan error, 1)
	must.Succeed(t, b.manager.Engine().WithBuffer(t.Context(), func(context.Context, []byte) error {
		go func() { done <- do() }()
		synctest.Wait()
		waited = len(done) == 0
		if held := locksOf(s); waited && len(held) > 0 {
			t.Errorf("it waits for memory with locks: %q", held)
		}
		return nil
	}))
	must.Succeed(t, <-done)
	return waited
}

// TestView_MemoryBeforeLocks: an access waits for the memory of copies before it takes a lock
// of a view, if it moves bytes, and a read never does.
func TestView_MemoryBeforeLocks(t *testing.T) {
	for view, kind := range movingViews {
		for access, do := range accesses {
			t.Run(view+"/"+access, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBed(t)
					defer b.close(t)
					b.manager.Engine().LimitMemory(copyMemory)
					s := NewStack(kind.make(t, b), NewGate())
					token, _ := b.populate(t, b.volume(t, movingSize), blockdev.Range{Length: movingSize})
					must.Succeed(t, s.WriteAt(ctx, pattern(1, 4096), 2<<20)) // caches have a line to write back
					waited := b.withoutMemory(t, s, func() error { return do(ctx, b, s, token) })
					if moves := slices.Contains(copyingAccesses, access) || slices.Contains(kind.also, access); moves && !waited {
						t.Error("it has not taken memory")
					}
					if access == "READ" && waited {
						t.Error("a read waits")
					}
				})
			})
		}
	}
}

// TestMirror_ResyncMemory: a resync waits for the memory of copies before it blocks writes.
func TestMirror_ResyncMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.close(t)
		b.manager.Engine().LimitMemory(copyMemory)
		var m *Mirror
		must.Succeed(t, b.manager.Engine().WithBuffer(ctx, func(context.Context, []byte) error {
			m = b.mirror(t, b.base(b.volume(t, movingSize)), b.base(b.outside(movingSize)))
			synctest.Wait()
			if held := regionsOf(m); len(held) > 0 || len(m.InSync()) != 1 {
				t.Errorf("it waits for memory with locks: %q; legs in sync: %v", held, m.InSync())
				return nil // without a write that would wait for the resync
			}
			return m.WriteAt(ctx, pattern(1, 4096), 0)
		}))
		m.resyncs.Wait()
		if legs := m.InSync(); len(legs) != 2 {
			t.Errorf("legs in sync: %v", legs)
		}
	})
}

// TestView_ConcurrentMemory: any number of tasks that access the same bytes, with memory of
// copies for one of them, get on.
func TestView_ConcurrentMemory(t *testing.T) {
	for view, kind := range movingViews {
		t.Run(view, func(t *testing.T) {
			b := start(t)
			e := b.manager.Engine()
			e.LimitMemory(copyMemory)
			gate := NewGate()
			gate.maxWait = patience // a deadlock does not end as busy
			s := NewStack(kind.make(t, b), gate)
			token, _ := b.populate(t, b.volume(t, movingSize), blockdev.Range{Length: movingSize})
			limited, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			var all sync.WaitGroup
			for access, do := range accesses {
				for range 3 {
					all.Go(func() {
						for range 4 {
							if err := do(limited, b, s, token); err != nil {
								t.Errorf("%s: %v", access, err)
							}
						}
					})
				}
			}
			done := make(chan struct{})
			go func() { all.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(2 * patience): // a mirror does not observe the time limit
				t.Fatal("deadlock")
			}
			if n := e.Buffered(); n != 0 {
				t.Errorf("%d bytes of memory are held at the end", n)
			}
		})
	}
}

// TestStack_Allocs: an access that moves no bytes of copies takes no memory, and allocates
// nothing: of a view in the store, and of an origin outside it once its chunks are copied.
func TestStack_Allocs(t *testing.T) {
	b := start(t)
	for name, d := range map[string]Device{
		"partition": func() Device {
			p, err := NewPartition(b.base(b.outside(movingSize+4096)), 4096, movingSize)
			must.Succeed(t, err)
			return p
		}(),
		"stripe":        stripeOf(t, 64<<10, b.base(b.outside(movingSize)), b.base(b.outside(movingSize))),
		"write-through": b.cache(b.base(b.outside(movingSize)), false, 64),
		"write-back":    b.cache(b.base(b.outside(movingSize)), true, 64),
		"origin":        b.foreignOrigin(t),
	} {
		s, p := NewStack(d, NewGate()), pattern(1, 4096)
		must.Succeed(t, s.WriteAt(ctx, p, 0))
		for access, do := range map[string]func(context.Context, []byte, int64) error{"READ": s.ReadAt, "WRITE": s.WriteAt} {
			if n := testing.AllocsPerRun(100, func() { must.Succeed(t, do(ctx, p, 0)) }); n != 0 {
				t.Errorf("%s of a %s: %v allocations", access, name, n)
			}
		}
	}
}
