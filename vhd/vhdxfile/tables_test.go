package vhdxfile

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
)

// fullPage is the memory of a full page in bytes.
const fullPage = 8 * pageEntries

// counting is a container that counts reads.
type counting struct {
	*sparse
	reads int
}

func (c *counting) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.reads++
	return c.sparse.ReadAt(ctx, p, off)
}

// longDisks returns disks with BATs of 32 MiB that share tables.
func longDisks(t *testing.T, tables *Tables, n int) (disks []*File, containers []*counting) {
	t.Helper()
	for range n {
		c := &counting{sparse: &sparse{}}
		f, err := tables.Create(t.Context(), c, spec(disk.Dynamic, 4<<40))
		must.Succeed(t, err)
		disks, containers = append(disks, f), append(containers, c)
	}
	return disks, containers
}

// touch looks up a block in each of the first n pages of a BAT.
func touch(f *File, n int64) {
	for i := range n {
		f.block(i * pageEntries)
	}
}

// Several disks with long BATs have the right contents within the bound.
func TestTables_Bound(t *testing.T) {
	ctx := t.Context()
	tables := NewTables(16 * fullPage)
	disks, _ := longDisks(t, tables, 5)
	rng := rand.New(rand.NewPCG(1, 1))
	want := make([]map[int64]disk.Block, len(disks))
	for n, f := range disks {
		var blocks []int64
		for range 100 {
			blocks = append(blocks, rng.Int64N(f.table.blocks))
		}
		must.Succeed(t, f.Allocate(ctx, blocks))
		must.Succeed(t, f.Free(ctx, blocks[:20]))
		want[n] = map[int64]disk.Block{}
		for _, i := range blocks {
			want[n][i] = f.block(i)
		}
		if held := tables.HeldBytes(); held > 16*fullPage {
			t.Fatalf("%d bytes are held after disk %d", held, n)
		}
	}
	var all sync.WaitGroup
	for n, f := range disks {
		for range 2 {
			all.Go(func() {
				for range 3 {
					for i, b := range want[n] {
						if got, err := f.Block(ctx, i); err != nil || got != b {
							t.Errorf("disk %d: block %d is %+v, %v, want %+v", n, i, got, err, b)
							return
						}
						if held := tables.HeldBytes(); held > 16*fullPage {
							t.Errorf("%d bytes are held", held)
							return
						}
					}
				}
			})
		}
	}
	all.Wait()
}

// A disk in use gets an equal share, whatever others cached before.
func TestTables_EqualShares(t *testing.T) {
	tables := NewTables(12 * fullPage)
	disks, _ := longDisks(t, tables, 3)
	for used := 1; used <= 3; used++ {
		touch(disks[used-1], 40)
		for n, f := range disks[:used] {
			if part := int64(12 / used); f.bat.held != part*fullPage {
				t.Errorf("%d disks are used: disk %d holds %d pages, not %d", used, n, f.bat.held/fullPage, part)
			}
		}
	}
	for _, f := range disks[:2] {
		must.Succeed(t, f.Close(t.Context()))
	}
	touch(disks[2], 40)
	if held := disks[2].bat.held; held != 12*fullPage || tables.HeldBytes() != held {
		t.Errorf("the disk that is left holds %d bytes of %d", held, tables.HeldBytes())
	}
}

// Each disk has a page, however many there are.
func TestTables_Minimum(t *testing.T) {
	for name, bound := range map[string]int64{"less than a page": 1, "two pages": 2 * fullPage} {
		t.Run(name, func(t *testing.T) {
			tables := NewTables(bound)
			disks, containers := longDisks(t, tables, 5)
			for _, f := range disks {
				touch(f, 8)
			}
			if held := tables.HeldBytes(); held != 5*fullPage {
				t.Errorf("5 disks hold %d bytes", held)
			}
			for n, f := range disks {
				before := containers[n].reads
				f.block(7 * pageEntries)
				f.block(7*pageEntries + 1)
				if reads := containers[n].reads - before; reads != 0 {
					t.Errorf("disk %d: its page was read %d times more", n, reads)
				}
			}
		})
	}
}

// The memory of a disk is freed however its use ends.
func TestTables_Release(t *testing.T) {
	ctx := t.Context()
	tables := NewTables(mib)
	c := &failing{sparse: &sparse{}}
	f, err := tables.Create(ctx, c, spec(disk.Differencing, 4<<40))
	must.Succeed(t, err)
	must.Succeed(t, f.Allocate(ctx, []int64{5}))
	given := func(what string) {
		t.Helper()
		if held := tables.HeldBytes(); held != 0 || len(tables.open) != 0 {
			t.Errorf("%s: %d bytes of %d disks are held", what, held, len(tables.open))
		}
	}
	must.Succeed(t, f.Close(ctx))
	given("closed")
	if b := f.block(5); b.State != disk.Partial {
		t.Errorf("closed: the block is %+v", b)
	}
	given("looked at after it was closed")
	f, err = tables.OpenReadOnly(ctx, c)
	must.Succeed(t, err)
	if f.block(5); tables.HeldBytes() == 0 {
		t.Error("opened for reading: nothing is held")
	}
	must.Succeed(t, f.Close(ctx))
	given("closed after reading")
	_, err = tables.Check(ctx, c)
	must.Succeed(t, err)
	given("checked")
	// The BAT is read far enough to cache a page.
	c.from = newBATAt + mib
	for what, open := range map[string]func() error{
		"open":           func() error { _, err := tables.Open(ctx, c); return err },
		"open read-only": func() error { _, err := tables.OpenReadOnly(ctx, c); return err },
		"check":          func() error { _, err := tables.Check(ctx, c); return err },
	} {
		if err := open(); !errors.Is(err, errUnreadable) {
			t.Errorf("%s: %v", what, err)
		}
		given(what)
	}
}
