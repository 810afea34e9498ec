package vhdxfile

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
)

// defaultPages is the number of cached pages of a disk with the default bound.
const defaultPages = defaultBound / (8 * pageEntries)

// A BAT that is longer than its cache has the same contents, in bounded memory.
func TestBAT_Long(t *testing.T) {
	ctx := t.Context()
	for name, kind := range map[string]disk.Kind{"dynamic": disk.Dynamic, "differencing": disk.Differencing} {
		t.Run(name, func(t *testing.T) {
			c := &sparse{}
			f, err := Create(ctx, c, spec(kind, 4<<40))
			must.Succeed(t, err)
			rng := rand.New(rand.NewPCG(1, 1))
			want := map[int64]disk.Block{}
			change := func(do func(blocks []int64) error, n int) {
				t.Helper()
				var blocks []int64
				for range n {
					blocks = append(blocks, rng.Int64N(f.table.blocks))
				}
				must.Succeed(t, do(blocks))
				for _, i := range blocks {
					want[i] = f.block(i)
				}
			}
			look := func(where string) {
				t.Helper()
				for i, b := range want {
					if got := f.block(i); got != b {
						t.Fatalf("%s: block %d is %+v, was %+v", where, i, got, b)
					}
				}
			}
			change(func(blocks []int64) error { return f.Allocate(ctx, blocks) }, 1500)
			change(func(blocks []int64) error { return f.Complete(ctx, blocks) }, 300)
			change(func(blocks []int64) error { return f.Free(ctx, blocks) }, 300)
			if held := f.bat.tables.HeldBytes(); held > defaultBound || held <= defaultBound-2*8*pageEntries {
				t.Errorf("%d bytes of the table are cached", held)
			}
			look("changed")
			must.Succeed(t, f.Close(ctx))
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f, err = Open(ctx, c)
			must.Succeed(t, err)
			look("opened again")
			runtime.GC()
			runtime.ReadMemStats(&after)
			// The pages, and a bit for each MiB of the file.
			if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > defaultBound+8*mib {
				t.Errorf("%d bytes are used", used)
			}
			runtime.KeepAlive(f)
			clean(t, c)
		})
	}
}

// failing is a container whose reads fail from an offset.
type failing struct {
	*sparse
	from int64
}

func (f *failing) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.from > 0 && off >= f.from {
		return errUnreadable
	}
	return f.sparse.ReadAt(ctx, p, off)
}

var errUnreadable = errors.New("unreadable")

// If a page cannot be read, no block is reported as absent.
func TestBAT_Unreadable(t *testing.T) {
	ctx := t.Context()
	c := &failing{sparse: &sparse{}}
	f, err := Create(ctx, c, spec(disk.Dynamic, 4<<40))
	must.Succeed(t, err)
	must.Succeed(t, f.Allocate(ctx, []int64{0, 1 << 21}))
	for n := range int64(2 * defaultPages) { // to evict its page
		if n != 1<<21/pageEntries {
			f.block(n * pageEntries)
		}
	}
	c.from = newBATAt
	d := disk.New(disk.Config{Table: f, Reader: c})
	for what, err := range map[string]error{
		"block":    func() error { _, err := f.Block(ctx, 1<<21); return err }(),
		"read":     d.ReadAt(ctx, make([]byte, 512), 1<<41),
		"write":    d.WriteAt(ctx, make([]byte, 512), 1<<41),
		"unmap":    d.Unmap(ctx, 1<<41, 2*mib),
		"runs":     d.Runs(ctx, 1<<41, mib, func(disk.Run) bool { return true }),
		"allocate": f.Allocate(ctx, []int64{1 << 21}),
		"present":  func() error { _, err := f.Present(ctx, 1<<21, 0, 1); return err }(),
	} {
		if !errors.Is(err, errUnreadable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	c.from = 0
	if b := f.block(1 << 21); b.State != disk.Full {
		t.Errorf("the block is %+v", b)
	}
}

// BenchmarkBlock looks up blocks in a short and in a long BAT.
func BenchmarkBlock(b *testing.B) {
	for name, size := range map[string]int64{"in memory": 1 << 40, "longer": 4 << 40} {
		b.Run(name, func(b *testing.B) {
			f, err := Create(b.Context(), &sparse{}, spec(disk.Dynamic, size))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				if _, err := f.Block(b.Context(), i%(1<<20)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Blocks are looked up concurrently with the eviction of pages.
func TestBAT_Concurrent(t *testing.T) {
	ctx := t.Context()
	c := &sparse{}
	f, err := Create(ctx, c, spec(disk.Dynamic, 4<<40))
	must.Succeed(t, err)
	var blocks []int64
	for n := range int64(2 * defaultPages) {
		blocks = append(blocks, n*pageEntries/2+n)
	}
	must.Succeed(t, f.Allocate(ctx, blocks))
	places := map[int64]disk.Block{}
	for _, i := range blocks {
		places[i] = f.block(i)
	}
	must.Succeed(t, f.Close(ctx))
	f, err = Open(ctx, c)
	must.Succeed(t, err)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 3000 {
				i := blocks[rng.IntN(len(blocks))]
				if b, err := f.Block(ctx, i); err != nil || b != places[i] {
					t.Errorf("block %d is %+v, %v, want %+v", i, b, err, places[i])
					return
				}
			}
		})
	}
	all.Wait()
}
