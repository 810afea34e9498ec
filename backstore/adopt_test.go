package backstore

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"time"

	"odx/backstore/layout"
	"odx/backstore/segment"
	"odx/backstore/vfs/rados"
	"odx/internal/kit/must"
)

// TestVolume_Adopt: extents of another store are mapped where they lie, over a restart, a kill of
// either owner, and the deletion of the source; what lies elsewhere is missing.
func TestVolume_Adopt(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 3, Options{DedupUnit: 8 << 10})
	const size = 4 << 20
	data := randomBytes(1, size)
	clear(data[1<<20 : 2<<20]) // a hole
	src := createVolume(t, p.stores[0], "src", size)
	must.Succeed(t, src.WriteAt(ctx, data, 0))
	n := pin(t, src)
	v := createVolume(t, p.stores[1], "v", size)
	must.Succeed(t, v.WriteAt(ctx, bytes.Repeat([]byte{7}, size), 0))
	before := p.stores[1].PhysicalBytes()
	mustAdopt(t, p, 0, n, v, 0, 0, size)
	if !bytes.Equal(readAll(t, v), data) {
		t.Fatal("other data than that of the source")
	}
	if got := p.stores[1].PhysicalBytes(); got != before {
		t.Errorf("%d bytes of segments, before %d", got, before)
	}
	if got := p.stores[1].AdoptedBytes(); got != 3<<20 {
		t.Errorf("%d bytes are adopted, want 3 MiB", got)
	}
	if got := p.stores[0].LentBytes(); got < 3<<20 {
		t.Errorf("%d bytes are lent, want 3 MiB at least", got)
	}
	must.Succeed(t, p.stores[1].Flush(ctx))

	// Data at other blocks than a block of the tree, and that of a third store, cannot be adopted.
	w := createVolume(t, p.stores[1], "w", size)
	mustAdopt(t, p, 0, n, w, 512, 0, 64<<10, Range{Offset: 512, Length: 64 << 10})
	x := createVolume(t, p.stores[2], "x", size)
	mustAdopt(t, p, 1, pin(t, v), x, 0, 0, 64<<10, Range{Length: 64 << 10})

	must.Succeed(t, p.stores[0].DeleteVolume(ctx, "src"), p.stores[0].DeleteSnapshot(ctx, n.ID()), p.stores[0].Flush(ctx))
	p.kill(1)
	p.kill(0)
	reaped(t, p.stores[0])
	must.Succeed(t, p.stores[0].Clean(ctx), p.stores[0].Checkpoint(ctx))
	v, err := p.stores[1].Volume("v")
	must.Succeed(t, err)
	if !bytes.Equal(readAll(t, v), data) {
		t.Fatal("other data after the source was deleted and both owners were killed")
	}
	p.settle(1)
	requireSound(t, p.stores[1])
	requireSound(t, p.stores[0])

	// It is brought home, and the maker gets its segments back.
	must.Succeed(t, p.stores[1].BringHome(ctx))
	p.settle(1)
	must.Succeed(t, p.stores[0].Checkpoint(ctx))
	if a, l := p.stores[1].AdoptedBytes(), p.stores[0].LentBytes(); a != 0 || l != 0 {
		t.Errorf("%d bytes are adopted, %d lent", a, l)
	}
	if got := p.stores[0].LiveBytes(); got != 0 {
		t.Errorf("the maker has %d live bytes", got)
	}
	if got := p.stores[0].parts.segments.List(); len(got) > 0 {
		t.Errorf("the maker has segments %v", got)
	}
	if !bytes.Equal(readAll(t, v), data) {
		t.Fatal("other data after it was brought home")
	}
	requireSound(t, p.stores[1])
	p.close()
}

// TestVolume_AdoptUnmapped: what was adopted and unmapped is never moved, and its hold ends.
func TestVolume_AdoptUnmapped(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	src := createVolume(t, p.stores[0], "src", 1<<20)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, 1<<20), 0))
	v := createVolume(t, p.stores[1], "v", 1<<20)
	mustAdopt(t, p, 0, pin(t, src), v, 0, 0, 1<<20)
	must.Succeed(t, p.stores[1].Checkpoint(ctx))
	p.settle(1)
	if p.stores[0].LentBytes() == 0 {
		t.Fatal("a claim has ended holds that are needed")
	}
	must.Succeed(t, v.Unmap(ctx, 0, 1<<20))
	reaped(t, p.stores[1])
	p.settle(1)
	if p.stores[0].LentBytes() == 0 {
		t.Fatal("a hold has ended before a checkpoint has stored that the alias is gone")
	}
	must.Succeed(t, p.stores[1].Checkpoint(ctx))
	p.settle(1)
	if got := p.stores[0].LentBytes(); got != 0 {
		t.Errorf("%d bytes are lent still", got)
	}
	if f, err := p.stores[1].Figures(); err != nil || f.Cleaning.MovedBytes != 0 {
		t.Errorf("%d bytes were moved, %v", f.Cleaning.MovedBytes, err)
	}
	p.close()
}

// TestCleaner_BringHome: the cleaner brings home what was adopted a while ago, and tries what it
// cannot read again later.
func TestCleaner_BringHome(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	data := randomBytes(1, 1<<20)
	src := createVolume(t, p.stores[0], "src", 1<<20)
	must.Succeed(t, src.WriteAt(ctx, data, 0))
	n, s := pin(t, src), p.stores[1]
	v := createVolume(t, s, "v", 1<<20)
	mustAdopt(t, p, 0, n, v, 0, 0, 1<<20)
	l := cleanLoop{c: &s.cleaner, damaged: make(map[segment.ID]bool), later: make(map[segment.ID]time.Time), tick: time.Now()}
	step := func(left int64) {
		t.Helper()
		if _, err := l.bringHome(ctx); err != nil {
			t.Error(err)
		}
		if got := s.AdoptedBytes(); got != left {
			t.Errorf("%d bytes are adopted, want %d", got, left)
		}
	}
	step(1 << 20) // it is too early
	s.opts.tuning.bringHomeAfter = time.Nanosecond
	step(0)
	if !bytes.Equal(readAll(t, v), data) {
		t.Error("other data")
	}
	must.Succeed(t, s.Checkpoint(ctx))
	p.settle(1)
	if got := p.stores[0].LentBytes(); got != 0 {
		t.Errorf("%d bytes are lent still", got)
	}

	must.Succeed(t, src.WriteAt(ctx, randomBytes(2, 1<<20), 0))
	mustAdopt(t, p, 0, pin(t, src), v, 0, 0, 1<<20)
	for _, id := range p.stores[0].parts.segments.List() {
		must.Succeed(t, p.stores[0].opts.FS.Remove(p.stores[0].opts.segmentFile(id)))
	}
	step(1 << 20)
	if len(l.later) != 1 {
		t.Errorf("%d aliases wait", len(l.later))
	}
	if more, err := l.bringHome(ctx); more || err != nil {
		t.Errorf("what waits is tried: %v, %v", more, err)
	}
}

// TestVolume_AdoptKnown: what the taker has is not adopted, and what it has adopted is found by
// later writes.
func TestVolume_AdoptKnown(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	data := randomBytes(1, 1<<20)
	src, own := createVolume(t, p.stores[0], "src", 1<<20), createVolume(t, p.stores[1], "own", 1<<20)
	must.Succeed(t, src.WriteAt(ctx, data, 0), own.WriteAt(ctx, data[:1<<19], 0))
	v := createVolume(t, p.stores[1], "v", 1<<20)
	mustAdopt(t, p, 0, pin(t, src), v, 0, 0, 1<<20)
	if got := p.stores[1].AdoptedBytes(); got != 1<<19 {
		t.Errorf("%d bytes are adopted, want half a MiB", got)
	}
	before := p.stores[1].LiveBytes()
	must.Succeed(t, own.WriteAt(ctx, data, 0))
	if got := p.stores[1].LiveBytes(); got != before {
		t.Errorf("%d bytes live, before the write of what was adopted %d", got, before)
	}
	p.close()
}

// TestSnapshot_LendTerms: a store with another key or unit, of another pool, or in none, gets
// nothing.
func TestSnapshot_LendTerms(t *testing.T) {
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	src := createVolume(t, p.stores[0], "src", 1<<20)
	n, v := pin(t, src), createVolume(t, p.stores[1], "v", 1<<20)
	good, err := v.BeginAdoption(p.stores[0].ID())
	must.Succeed(t, err)
	defer good.End()
	for what, change := range map[string]func(t *Terms){
		"key":  func(t *Terms) { t.Proof[0] ^= 1 },
		"pool": func(t *Terms) { t.Pool[0] ^= 1 },
		"self": func(t *Terms) { t.Store = p.stores[0].ID() },
	} {
		terms := good.Terms()
		change(&terms)
		if _, err := n.Lend(t.Context(), terms, 0, 1<<20); !errors.Is(err, ErrNoAdoption) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := n.Lend(t.Context(), good.Terms(), 0, 1<<20); err != nil {
		t.Error(err)
	}
	alone := newDisk().open(t, 4<<10)
	defer alone.Close()
	if _, err := createVolume(t, alone, "v", 1<<20).BeginAdoption(p.stores[0].ID()); !errors.Is(err, ErrNoAdoption) {
		t.Errorf("a store in no pool: %v", err)
	}
}

// TestAdopted_Lost: where the maker's segment is gone or damaged, reads of it fail, scrub says so,
// the rest is right, and an unmap or a write ends it.
func TestAdopted_Lost(t *testing.T) {
	for _, how := range []string{"removed", "damaged"} {
		t.Run(how, func(t *testing.T) {
			ctx := t.Context()
			p := newShared(t, 2, Options{DedupUnit: 4 << 10})
			data := randomBytes(1, 1<<20)
			src, v := createVolume(t, p.stores[0], "src", 1<<20), createVolume(t, p.stores[1], "v", 2<<20)
			must.Succeed(t, src.WriteAt(ctx, data, 0))
			mustAdopt(t, p, 0, pin(t, src), v, 0, 0, 1<<20)
			must.Succeed(t, v.WriteAt(ctx, data[:1<<19], 1<<20+1<<19)) // equal to what is adopted
			must.Succeed(t, v.WriteAt(ctx, []byte("own data"), 1<<20))
			name := p.stores[0].opts.segmentFile(p.stores[0].parts.segments.List()[0])
			if how == "removed" {
				must.Succeed(t, p.stores[0].opts.FS.Remove(name))
			} else {
				f, err := p.stores[0].opts.FS.Open(name)
				must.Succeed(t, err)
				_, err = f.WriteAt(make([]byte, 1<<20), BlockLength)
				must.Succeed(t, err, f.Sync(), f.Close())
			}
			// The handle of a segment that was read is open.
			for _, id := range p.stores[1].parts.segments.List() {
				p.stores[1].parts.segments.Forget(id)
			}
			err := v.ReadAt(ctx, make([]byte, BlockLength), 0)
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("read: %v, want ErrCorrupt", err)
			}
			b := make([]byte, 8)
			if err := v.ReadAt(ctx, b, 1<<20); err != nil || string(b) != "own data" {
				t.Errorf("own data: %q, %v", b, err)
			}
			r, err := p.stores[1].Scrub(ctx, ScrubOptions{})
			must.Succeed(t, err)
			if r.Damaged == 0 || len(r.Damages) == 0 || len(r.Damages[0].Uses) == 0 || r.Damages[0].Uses[0].Volume != "v" {
				t.Errorf("scrub: %+v", r)
			}
			if findings, err := p.stores[1].Check(ctx); how == "removed" && (err != nil || len(findings) == 0) {
				t.Errorf("check finds nothing: %v", err)
			}
			must.Succeed(t, v.WriteAt(ctx, data, 0), v.Unmap(ctx, 1<<20+1<<19, 1<<19))
			reaped(t, p.stores[1])
			must.Succeed(t, p.stores[1].Checkpoint(ctx))
			if got := p.stores[1].AdoptedBytes(); got != 0 {
				t.Errorf("%d bytes are adopted still", got)
			}
			if !bytes.Equal(readAll(t, v)[:1<<20], data) {
				t.Error("other data after it was written again")
			}
			requireSound(t, p.stores[1])
		})
	}
}

// TestShared_OldPrograms: a program that knows of no aliases refuses both stores.
func TestShared_OldPrograms(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	flagged := func(i int) bool {
		sb, err := layout.ReadSuperblock(p.stores[i].opts.FS, "/store/"+layout.SuperblockName)
		must.Succeed(t, err)
		return sb.Shared
	}
	src, v := createVolume(t, p.stores[0], "src", 1<<20), createVolume(t, p.stores[1], "v", 1<<20)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, 1<<20), 0))
	if flagged(0) || flagged(1) {
		t.Error("a store is marked before anything is shared")
	}
	mustAdopt(t, p, 0, pin(t, src), v, 0, 0, 1<<20)
	if !flagged(0) || !flagged(1) {
		t.Error("a store is not marked")
	}
	p.close()
}

// TestAdoption_Malformed: a loan that no maker gives is refused, and changes nothing.
func TestAdoption_Malformed(t *testing.T) {
	p := newShared(t, 2, Options{DedupUnit: 8 << 10})
	v := createVolume(t, p.stores[1], "v", 1<<20)
	crc := func(n int) LentExtent { return LentExtent{CRC: make([]uint32, n)} }
	for what, part := range map[string]Lent{
		"no length":        {Segment: 1, Block: 1},
		"hole of extents":  {Length: 4096, Hole: true, Segment: 1, Block: 1, Extents: []LentExtent{crc(1)}},
		"no extents":       {Length: 4096, Segment: 1, Block: 1},
		"no segment":       {Length: 4096, Extents: []LentExtent{crc(1)}},
		"another length":   {Length: 8192, Segment: 1, Block: 1, Extents: []LentExtent{crc(1)}},
		"the header":       {Length: 4096, Segment: 1, Extents: []LentExtent{crc(1)}},
		"block overflows":  {Length: 8192, Segment: 1, Block: 1<<32 - 1, Extents: []LentExtent{crc(2)}},
		"extent too long":  {Length: 12288, Segment: 1, Block: 1, Extents: []LentExtent{crc(3)}},
		"empty extent":     {Length: 4096, Segment: 1, Block: 1, Extents: []LentExtent{crc(1), crc(0)}},
		"beyond the bound": {Length: MaxLend + 1, Hole: true},
	} {
		a, err := v.BeginAdoption(p.stores[0].ID())
		must.Succeed(t, err)
		if _, _, err := a.Apply(t.Context(), 0, Loan{Place: "0", Parts: []Lent{part}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		a.End()
	}
	if got := p.stores[1].AdoptedBytes(); got != 0 {
		t.Errorf("%d bytes are adopted", got)
	}
	p.close()
}

// TestSibling_Errors: a file that is not there, and one that its owner changes in place.
func TestSibling_Errors(t *testing.T) {
	p := newShared(t, 1, Options{})
	files := rados.NewSibling(p.twins[0].Client())
	if _, err := files.Open("/store/segments/00000099.seg"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	if _, err := files.Open("/store/store"); err == nil {
		t.Error("the superblock could be opened")
	}
	p.close()
}
