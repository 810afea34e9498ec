package backstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"odx/backstore/extent"
	"odx/internal/kit/must"
)

// pinned is a snapshot, and the plain twin of what it holds.
type pinned struct {
	*Snapshot
	sectors map[int64]uint32 // of the snapshot's bytes; those of zeros are left out
}

// diffHistory drives a store with random operations and keeps what its volumes hold.
type diffHistory struct {
	tb    testing.TB
	rng   *rand.Rand
	store *Store
	now   map[*Volume]map[int64]uint32
	pins  []pinned
	value uint32
	made  int
}

func newDiffHistory(tb testing.TB, seed uint64) *diffHistory {
	rng := rand.New(rand.NewPCG(seed, 0))
	o := Options{DedupUnit: 4 << 10 << rng.IntN(5), StoreDuplicates: rng.IntN(3) == 0, CacheBytes: 1 << 20}
	s, err := Open(context.Background(), newDisk().options(o))
	must.Succeed(tb, err)
	h := &diffHistory{tb: tb, rng: rng, store: s, now: make(map[*Volume]map[int64]uint32)}
	tb.Cleanup(func() {
		for _, n := range h.pins {
			n.Release()
		}
		must.Succeed(tb, s.Close())
	})
	h.create()
	return h
}

func (h *diffHistory) name() string {
	h.made++
	return fmt.Sprint("v", h.made)
}

func (h *diffHistory) create() {
	// Some have an end within a block, some have trees of one, two and three levels.
	size := []int64{100, 3000, 512 * 8, 1<<13 + 3, 512 * 512 * 8 * 2}[h.rng.IntN(5)] * sector
	v, err := h.store.CreateVolume(context.Background(), h.name(), size)
	must.Succeed(h.tb, err)
	h.now[v] = make(map[int64]uint32)
}

// volume draws one; the order of a map is not that of the seed.
func (h *diffHistory) volume() *Volume {
	all := slices.SortedFunc(maps.Keys(h.now), func(a, b *Volume) int { return int(a.number) - int(b.number) })
	return all[h.rng.IntN(len(all))]
}

// place draws sectors of a volume, near each other and near the ends of leaves and of
// the volume more often than not.
func (h *diffHistory) place(v *Volume, most int64) (first, count int64) {
	all := v.Size() / sector
	first = []int64{h.rng.Int64N(all), h.rng.Int64N(min(all, 200)), max(0, all-1-h.rng.Int64N(50)), min(all-1, 512*8-h.rng.Int64N(40))}[h.rng.IntN(4)]
	return first, 1 + h.rng.Int64N(min(most, all-first))
}

func (h *diffHistory) write() {
	v := h.volume()
	first, count := h.place(v, 100)
	if h.rng.IntN(2) == 0 { // whole blocks
		first &^= 7
	}
	data := make([]uint32, count)
	for i := range data {
		if h.rng.IntN(8) != 0 {
			h.value++
		}
		data[i] = h.value % 97 // what was there before often comes again
	}
	must.Succeed(h.tb, v.WriteAt(context.Background(), content(data), first*sector))
	for i, value := range data {
		h.set(v, first+int64(i), value)
	}
}

func (h *diffHistory) set(v *Volume, at int64, value uint32) {
	if delete(h.now[v], at); value != 0 {
		h.now[v][at] = value
	}
}

func (h *diffHistory) unmap() {
	v := h.volume()
	first, count := h.place(v, 1<<20)
	must.Succeed(h.tb, v.Unmap(context.Background(), first*sector, count*sector))
	maps.DeleteFunc(h.now[v], func(at int64, _ uint32) bool { return at >= first && at < first+count })
}

// copy maps a part of a snapshot.
func (h *diffHistory) copy() {
	if len(h.pins) == 0 {
		return
	}
	n, v := h.pins[h.rng.IntN(len(h.pins))], h.volume()
	to, count := h.place(v, 1<<14)
	from := h.rng.Int64N(n.Length() / sector)
	if h.rng.IntN(2) == 0 && to < n.Length()/sector {
		from = to
	}
	if h.rng.IntN(2) == 0 {
		from, to = from&^7, to&^7
	}
	count = min(count, n.Length()/sector-from)
	_, err := v.Map(context.Background(), to*sector, n.Snapshot, from*sector, count*sector)
	must.Succeed(h.tb, err)
	if count < 1<<10 {
		for i := range count {
			h.set(v, to+i, n.sectors[from+i])
		}
		return
	}
	maps.DeleteFunc(h.now[v], func(at int64, _ uint32) bool { return at >= to && at < to+count })
	for at, value := range n.sectors {
		if at >= from && at < from+count {
			h.set(v, at-from+to, value)
		}
	}
}

func (h *diffHistory) grow() {
	v := h.volume()
	must.Succeed(h.tb, v.Grow(context.Background(), v.Size()+h.rng.Int64N(1<<uint(h.rng.IntN(18)))*sector))
}

func (h *diffHistory) clone() {
	if len(h.now) > 4 {
		return
	}
	v := h.volume()
	c, err := h.store.CloneVolume(context.Background(), v.Name(), h.name())
	must.Succeed(h.tb, err)
	h.now[c] = maps.Clone(h.now[v])
}

func (h *diffHistory) revert() {
	v, to := h.volume(), h.volume()
	if v == to {
		return
	}
	must.Succeed(h.tb, v.Revert(context.Background(), to))
	h.now[v] = maps.Clone(h.now[to])
}

// snapshot pins a volume, whole or in ranges.
func (h *diffHistory) snapshot() {
	if len(h.pins) > 12 {
		i := h.rng.IntN(len(h.pins))
		h.pins[i].Release()
		h.pins = slices.Delete(h.pins, i, i+1)
	}
	v := h.volume()
	ranges := []Range{{Length: v.Size()}}
	if h.rng.IntN(4) == 0 {
		ranges = nil
		for range 1 + h.rng.IntN(3) {
			first, count := h.place(v, 1<<13)
			if h.rng.IntN(2) == 0 {
				first &^= 7
			}
			ranges = append(ranges, Range{Offset: first * sector, Length: count * sector})
		}
	}
	n, err := v.Snapshot(context.Background(), ranges, nil)
	must.Succeed(h.tb, err)
	p := pinned{Snapshot: n, sectors: make(map[int64]uint32)}
	base := int64(0)
	for _, r := range ranges {
		for at, value := range h.now[v] {
			if at >= r.Offset/sector && at < r.End()/sector {
				p.sectors[base+at-r.Offset/sector] = value
			}
		}
		base += r.Length / sector
	}
	h.pins = append(h.pins, p)
}

func (h *diffHistory) step() {
	[]func(){h.write, h.write, h.write, h.write, h.unmap, h.copy, h.copy, h.grow, h.clone, h.revert, h.create, h.snapshot, h.snapshot}[h.rng.IntN(13)]()
}

// slotAt returns the slot and the place in the tree of a byte of a snapshot.
func slotAt(tb testing.TB, n *Snapshot, off int64) (extent.Slot, int64) {
	tb.Helper()
	if n == nil || off >= n.Length() {
		return 0, off
	}
	at, _ := n.state.locate(off)
	var slot [1]extent.Slot
	must.Succeed(tb, n.store.parts.forest.Lookup(n.state.root, uint64(at/BlockLength), slot[:]))
	return slot[0], at
}

// compare checks a Diff of two snapshots sector by sector: what is reported is what has
// other slots, no more and no less; so nothing is missing that reads otherwise.
func (h *diffHistory) compare(n, base pinned) {
	h.tb.Helper()
	reported := make(map[int64]bool) // sector: hole
	total, end := int64(0), int64(0)
	off := h.rng.Int64N(n.Length()/sector) * sector
	length := n.Length() - off
	if h.rng.IntN(2) == 0 {
		off, length = 0, n.Length()
	}
	last := Difference{}
	must.Succeed(h.tb, n.Diff(context.Background(), base.Snapshot, off, length, func(d Difference) error {
		if d.Length <= 0 || d.Offset < max(end, off) || d.End() > off+length {
			h.tb.Fatalf("difference %v is not in order within %d bytes at %d", d, length, off)
		}
		if d.Hole == last.Hole && d.Offset == last.End() && last.Length > 0 {
			h.tb.Fatalf("differences %v and %v are not joined", last, d)
		}
		last, end = d, d.End()
		total += d.Length / sector
		if d.Length < 1<<22 {
			for at := d.Offset / sector; at < d.End()/sector; at++ {
				reported[at] = d.Hole
			}
		} else { // no more than the test knows of
			for _, m := range []map[int64]uint32{n.sectors, base.sectors} {
				for at := range m {
					if at >= d.Offset/sector && at < d.End()/sector {
						reported[at] = d.Hole
					}
				}
			}
		}
		return nil
	}))
	seen := int64(0)
	check := func(at int64) {
		now, place := slotAt(h.tb, n.Snapshot, at*sector)
		then, was := slotAt(h.tb, base.Snapshot, at*sector)
		differs := now != then || place%BlockLength != was%BlockLength
		hole, ok := reported[at]
		if ok {
			seen++
		}
		if ok != differs {
			h.tb.Fatalf("sector %d: reported %v, slots %d and %d", at, ok, now, then)
		}
		if ok && hole != (now == 0) {
			h.tb.Fatalf("sector %d: reported as hole %v, slot %d", at, hole, now)
		}
		if !ok && n.sectors[at] != base.sectors[at] && at*sector >= off && at*sector < off+length {
			h.tb.Fatalf("sector %d: not reported, values %d and %d", at, n.sectors[at], base.sectors[at])
		}
	}
	blocks := make(map[int64]bool)
	for _, m := range []map[int64]uint32{n.sectors, base.sectors} {
		for at := range m {
			blocks[at] = true
		}
	}
	for at := range reported {
		blocks[at] = true
	}
	for at := range blocks {
		if at*sector >= off && at*sector < off+length {
			check(at)
		}
	}
	if seen != int64(len(reported)) {
		h.tb.Fatalf("%d of %d reported sectors compared", seen, len(reported))
	}
}

// TestSnapshot_Diff: in random histories, what is reported between any two snapshots.
func TestSnapshot_Diff(t *testing.T) {
	forSeeds(t, 6, func(t *testing.T, seed uint64) {
		h := newDiffHistory(t, seed)
		for range 60 {
			h.step()
		}
		h.snapshot()
		for _, n := range h.pins {
			h.compare(n, pinned{})
			for _, base := range h.pins {
				h.compare(n, base)
			}
		}
	})
}

// TestSnapshot_Diff_Concurrent: writes, checkpoints and reaping go on next to a Diff, which
// finds the same each time.
func TestSnapshot_Diff_Concurrent(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 64<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 200 {
		must.Succeed(t, v.WriteAt(ctx, randomBytes(uint64(i), BlockLength), rng.Int64N(64<<8)*BlockLength))
	}
	base := pin(t, v)
	for i := range 50 {
		must.Succeed(t, v.WriteAt(ctx, randomBytes(1000+uint64(i), BlockLength), rng.Int64N(64<<8)*BlockLength))
	}
	n := pin(t, v)
	diff := func() (found []Difference) {
		must.Succeed(t, n.Diff(ctx, base, 0, n.Length(), func(d Difference) error {
			found = append(found, d)
			return nil
		}))
		return found
	}
	want := diff()
	var others sync.WaitGroup
	stop := make(chan struct{})
	for g := range 2 {
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				at := int64((i*7919 + g*31) % (64 << 8))
				if err := v.WriteAt(ctx, randomBytes(uint64(i), BlockLength), at*BlockLength); err != nil {
					t.Error(err)
					return
				}
				if i%50 == 0 {
					if err := s.Checkpoint(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 100 {
		if got := diff(); !slices.Equal(got, want) {
			t.Errorf("%d differences, want %d as before", len(got), len(want))
			break
		}
	}
	close(stop)
	others.Wait()
}

// TestSnapshot_Diff_Ends: an error of fn and the end of the context end a Diff.
func TestSnapshot_Diff_Ends(t *testing.T) {
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 4<<20)
	must.Succeed(t, v.WriteAt(context.Background(), randomBytes(1, 8<<10), 0))
	n := pin(t, v)
	stop := errors.New("stop")
	if err := n.Diff(context.Background(), nil, 0, n.Length(), func(Difference) error { return stop }); err != stop {
		t.Errorf("%v, want the error of fn", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Diff(ctx, nil, 0, n.Length(), func(Difference) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if err := n.Diff(context.Background(), nil, 1, n.Length(), nil); !errors.Is(err, ErrRange) {
		t.Errorf("%v, want ErrRange", err)
	}
}
