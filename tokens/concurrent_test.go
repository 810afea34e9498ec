package tokens_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"odx/tokens"
)

// Eight users make 1,000 copies concurrently, with tokens of every type, and verify
// each, while a writer ends change vulnerable tokens.
func TestManager_ConcurrentCopies(t *testing.T) {
	const users, copies, size, slot = 8, 125, 16 << 20, 128 << 10
	d := newDisk()
	w := &extentWorld{options: d.options()}
	w.open(t)
	defer func() { w.close(t) }()
	src, dst := w.create(t, "src", size, 512), w.create(t, "dst", users*slot*4, 512)
	data := pattern(t, src, 7)
	all := append(kinds[:len(kinds):len(kinds)], kinds[0])
	all[len(all)-1].rodType = tokens.RODTypeHash
	var cancelled atomic.Int64
	var running sync.WaitGroup
	for user := range users {
		running.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(user), 1))
			for n := range copies {
				unit := []int64{512, 4096}[rng.IntN(2)]
				// The writer overwrites the first MiB, which ends change vulnerable
				// tokens.
				from := 1<<20 + rng.Int64N(size-2<<20)/unit*unit
				k := all[rng.IntN(len(all))]
				if n%20 == 0 {
					k, from = kinds[2], 0
				}
				to := int64(user*4+rng.IntN(3)) * slot
				r, err := w.manager.OffloadRead(ctx, source(src), ranges(from, slot), tokens.ReadOptions{Type: k.rodType})
				if err != nil {
					t.Error(err)
					return
				}
				wrote, err := w.manager.OffloadWrite(ctx, r.Token, 0, destination(dst), ranges(to, slot), tokens.WriteOptions{Completion: tokens.Completion(rng.IntN(2))})
				if from == 0 && errors.Is(err, tokens.ErrCancelled) {
					cancelled.Add(1)
					continue
				}
				if err != nil || wrote != slot {
					t.Errorf("%v: %d bytes, %v", k.rodType, wrote, err)
					return
				}
				p := make([]byte, slot)
				if err := dst.ReadAt(ctx, p, to); err != nil || from > 0 && !bytes.Equal(p, data[from:from+slot]) {
					t.Errorf("%v from %d: wrong data, %v", k.rodType, from, err)
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := byte(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := src.WriteAt(ctx, bytes.Repeat([]byte{n}, 4096), int64(n%32)*4096); err != nil {
				t.Error(err)
				return
			}
		}
	})
	running.Wait()
	close(stop)
	writer.Wait()
	for _, i := range w.manager.List() {
		if err := w.manager.Delete(ctx, i.ID, tokens.Revoked); err != nil && !errors.Is(err, tokens.ErrCancelled) {
			t.Error(err)
		}
	}
	if st := w.manager.Stats(); st.Live != 0 || st.MemoryBytes != 0 || st.PinnedBytes != 0 {
		t.Errorf("%+v", st)
	}
	if findings, err := w.store.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("check of the store: %v, %v", findings, err)
	}
	t.Logf("%d copies found that a write had ended their token", cancelled.Load())
}
