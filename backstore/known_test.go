package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"odx/backstore/extent"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// fetch makes a volume equal a snapshot of another store, as a peer does. It returns how
// many bytes were not known.
func fetch(tb testing.TB, to *Volume, off int64, n *Snapshot) (sent int64) {
	tb.Helper()
	ctx := context.Background()
	from, runs := n.store.ID(), collectRuns(tb, n, 0, n.Length())
	missing, err := to.MapKnown(ctx, from, off, runs)
	must.Succeed(tb, err)
	for _, m := range missing {
		p := make([]byte, m.Length)
		must.Succeed(tb, n.ReadAt(ctx, p, m.Offset-off))
		must.Succeed(tb, to.WriteKnown(ctx, from, p, m.Offset, collectRuns(tb, n, m.Offset-off, m.Length)))
		sent += m.Length
	}
	return sent
}

// equal compares a volume with a snapshot.
func equal(tb testing.TB, v *Volume, off int64, n *Snapshot) {
	tb.Helper()
	got, want := make([]byte, n.Length()), make([]byte, n.Length())
	must.Succeed(tb, v.ReadAt(context.Background(), got, off))
	must.Succeed(tb, n.ReadAt(context.Background(), want, 0))
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				tb.Fatalf("byte %d differs", i)
			}
		}
	}
}

// TestVolume_MapKnown: what has come from another store once is mapped, after a restart
// too, as long as something refers to it; what is unknown, gone or has another name or
// checksum is missing.
func TestVolume_MapKnown(t *testing.T) {
	ctx := context.Background()
	a := newDisk().open(t, 16<<10)
	defer a.Close()
	d := newDisk()
	b := d.open(t, 4<<10)
	const size = 8 << 20
	src := createVolume(t, a, "src", size)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, 3<<20), 1<<20))
	n := pin(t, src)
	first := createVolume(t, b, "first", size)
	if sent := fetch(t, first, 0, n); sent != 3<<20 {
		t.Errorf("%d bytes were sent, want all", sent)
	}
	equal(t, first, 0, n)
	again := func(name string, want int64) {
		t.Helper()
		v := createVolume(t, b, name, size)
		must.Succeed(t, v.WriteAt(ctx, randomBytes(3, 64<<10), 0)) // a hole is to be there
		stored := b.parts.extents.Next()
		if sent := fetch(t, v, 0, n); sent != want {
			t.Errorf("%s: %d bytes were sent, want %d", name, sent, want)
		}
		if got := b.parts.extents.Next(); want == 0 && got != stored {
			t.Errorf("%s: %d extents were stored", name, got-stored)
		}
		equal(t, v, 0, n)
		must.Succeed(t, b.DeleteVolume(ctx, name))
		reaped(t, b)
	}
	again("again", 0)
	must.Succeed(t, b.Close())
	b = d.open(t, 4<<10)
	again("after a restart", 0)
	killed := &disk{fs: d.fs.ProcessClone()}
	must.Succeed(t, b.Close())
	d, b = killed, killed.open(t, 4<<10)
	defer func() { must.Succeed(t, b.Close()) }()
	again("after a kill", 0)

	// A part of it changes there, and is gone here.
	must.Succeed(t, src.WriteAt(ctx, randomBytes(2, 64<<10), 2<<20))
	n = pin(t, src)
	again("changed", 64<<10)
	again("changed once more", 64<<10) // it was deleted with its volume
	first, err := b.Volume("first")
	must.Succeed(t, err)
	must.Succeed(t, first.Unmap(ctx, 3<<20, 1<<20))
	again("gone", 64<<10+1<<20)

	first = createVolume(t, b, "second", size)
	fetch(t, first, 0, n)
	again("there", 0)
	runs := collectRuns(t, n, 1<<20, 1<<20)
	to := createVolume(t, b, "to", size)
	for name, c := range map[string]struct {
		from   [16]byte
		change func(r *Run)
	}{
		"another store":    {[16]byte{1}, func(*Run) {}},
		"another series":   {a.ID(), func(r *Run) { r.Series++ }},
		"another slot":     {a.ID(), func(r *Run) { r.Slots[0] += 1 << 40 }},
		"a slot too large": {a.ID(), func(r *Run) { r.Slots[0] = ^uint64(0) }},
		"another checksum": {a.ID(), func(r *Run) { r.CRC[0]++ }},
	} {
		r := runs[0]
		r.Slots, r.CRC = slices.Clone(r.Slots), slices.Clone(r.CRC)
		c.change(&r)
		missing, err := to.MapKnown(ctx, c.from, 0, []Run{r})
		must.Succeed(t, err)
		if len(missing) != 1 || missing[0].Offset != 0 || missing[0].Length < BlockLength {
			t.Errorf("%s: %v is missing", name, missing)
		}
	}
	findings, err := b.Check(ctx)
	if err != nil || len(findings) > 0 {
		t.Errorf("check: %v %v", findings, err)
	}
}

// TestKnown_Histories: a store follows another one through random histories of both, power
// cuts included, in which the other one also goes back to an earlier copy of itself; what
// it has is always equal, and no name that the other one gives out ever has two contents.
func TestKnown_Histories(t *testing.T) {
	forSeeds(t, sample.Size[uint64](1, 4, 4), func(t *testing.T, seed uint64) {
		ctx := context.Background()
		rng := rand.New(rand.NewPCG(seed, 5))
		oa, ob := drawOptions(rng), drawOptions(rng)
		oa.CapacityBytes, ob.CapacityBytes = 0, 0
		ob.tuning.leastNames = 512
		da, db := newDisk(), newDisk()
		open := func(d *disk, o Options) *Store {
			s, err := Open(ctx, d.options(o))
			must.Succeed(t, err)
			return s
		}
		a, b := open(da, oa), open(db, ob)
		defer func() { must.Succeed(t, errors.Join(a.Close(), b.Close())) }()
		const size = 6 << 20
		must.Succeed(t, errors.Join(a.Flush(ctx), b.Flush(ctx)))
		createVolume(t, a, "v", size)
		for i := range 3 {
			createVolume(t, b, fmt.Sprint("v", i), size)
		}
		type name struct{ series, slot uint64 }
		contents := make(map[name]uint32)
		var copies []*disk // of a
		sent, fetched := int64(0), int64(0)
		for step := range 80 {
			v, err := a.Volume("v")
			must.Succeed(t, err)
			switch rng.IntN(10) {
			case 0, 1, 2:
				p := randomBytes(seed<<8+uint64(step), (1+rng.IntN(40))*BlockLength)
				must.Succeed(t, v.WriteAt(ctx, p, rng.Int64N(size-int64(len(p)))&^[]int64{511, 4095, 65535}[rng.IntN(3)]))
			case 3:
				off := rng.Int64N(size/2) &^ 4095
				must.Succeed(t, v.Unmap(ctx, off, rng.Int64N(size/4)))
			case 4:
				must.Succeed(t, []func(context.Context) error{a.Flush, a.Checkpoint, a.Clean}[rng.IntN(3)](ctx))
			case 5: // the power goes on one side
				if rng.IntN(2) == 0 {
					cut := da.crash(rng)
					a.Close()
					da, a = cut, open(cut, oa)
				} else {
					cut := db.crash(rng)
					b.Close()
					db, b = cut, open(cut, ob)
				}
			case 6:
				copies = append(copies, da.crash(rng))
				if rng.IntN(2) == 0 {
					must.Succeed(t, b.Checkpoint(ctx))
				}
			case 7: // a goes back
				if len(copies) > 0 {
					a.Close()
					da = &disk{fs: copies[rng.IntN(len(copies))].fs.ProcessClone()}
					a = open(da, oa)
				}
			default:
				n, err := v.Snapshot(ctx, []Range{{Length: size}}, nil)
				must.Succeed(t, err)
				for _, r := range collectRuns(t, n, 0, size) {
					for i, slot := range r.Slots {
						key := name{r.Series, slot}
						if crc, ok := contents[key]; ok && crc != r.CRC[i] {
							t.Fatalf("step %d: slot %d of series %x has two contents", step, slot, r.Series)
						}
						contents[key] = r.CRC[i]
					}
				}
				to, err := b.Volume(fmt.Sprint("v", rng.IntN(3)))
				must.Succeed(t, err)
				sent += fetch(t, to, 0, n)
				fetched += size
				equal(t, to, 0, n)
				n.Release()
				if rng.IntN(4) == 0 {
					must.Succeed(t, b.pruneNames(ctx))
				}
			}
		}
		for _, s := range []*Store{a, b} {
			requireSound(t, s)
		}
		t.Logf("%d of %d bytes sent, %d names", sent, fetched, len(contents))
	})
}

// TestKnown_Bound: names of blocks that are gone, and names beyond the bound, leave the
// table; those that are left map what they name.
func TestKnown_Bound(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s, err := Open(ctx, d.options(Options{DedupUnit: 4 << 10, tuning: tuning{leastNames: 2048}}))
	must.Succeed(t, err)
	defer func() { must.Succeed(t, s.Close()) }()
	v := createVolume(t, s, "v", 4<<20)
	names := func() int64 {
		n, err := s.countNames(ctx)
		must.Succeed(t, err)
		return n
	}
	most := int64(0)
	next := 0
	for range 200 { // 51,200 names, of 256 blocks that are always replaced
		vals := make([]uint32, 256*BlockLength/sector)
		for i := range vals {
			vals[i] = uint32(next+i/(BlockLength/sector)) + 1
		}
		must.Succeed(t, v.WriteKnown(ctx, otherStore, content(vals), 0, []Run{namedRun(next, vals)}))
		next += 256
		if n := names(); n > s.names.most()+256 {
			must.Succeed(t, s.pruneNames(ctx))
		}
		most = max(most, names())
	}
	if most > 2048+2*256 {
		t.Errorf("there were %d names, the bound is 2048", most)
	}
	must.Succeed(t, s.pruneNames(ctx))
	if n := names(); n > 256 {
		t.Errorf("%d names of 256 blocks are left", n)
	}
	// One block under very many names.
	vals := slices.Repeat([]uint32{5}, BlockLength/sector)
	for i := range 5000 {
		must.Succeed(t, v.WriteKnown(ctx, otherStore, content(vals), 3<<20, []Run{namedRun(1<<20+i, vals)}))
	}
	must.Succeed(t, s.pruneNames(ctx))
	if n := names(); n > s.names.most() {
		t.Errorf("%d names are left, the bound is %d", n, s.names.most())
	}
	missing, err := v.MapKnown(ctx, otherStore, 0, []Run{namedRun(1<<20+4999, vals)})
	must.Succeed(t, err)
	if len(missing) > 0 {
		t.Error("the name that was added last is not known")
	}
	must.Succeed(t, s.Checkpoint(ctx))
	stored := 0
	must.Succeed(t, s.parts.kv.Scan([]byte{'k'}, func(_, value []byte) error {
		stored += len(value)
		return nil
	}))
	if stored > 64<<10 {
		t.Errorf("%d bytes are stored", stored)
	}
}

// TestKnown_DamagedTable: whatever the rows of the table say, nothing wrong is mapped.
func TestKnown_DamagedTable(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 4<<20)
	vals := make([]uint32, 256*BlockLength/sector)
	for i := range vals {
		vals[i] = uint32(i/(BlockLength/sector)) + 1
	}
	must.Succeed(t, v.WriteKnown(ctx, otherStore, content(vals), 0, []Run{namedRun(0, vals)}))
	rng := rand.New(rand.NewPCG(1, 7))
	// Local slots are those of other blocks, and none.
	slots, local := make([]uint64, 256), make([]extent.Slot, 256)
	for i := range slots {
		slots[i], local[i] = uint64(1+i), extent.Slot(rng.Uint64N(uint64(s.parts.extents.Next())))
	}
	must.Succeed(t, s.changeNames(ctx, func() error {
		_, err := s.parts.known.Add(otherStore, 9, slots, local)
		return err
	}))
	to := createVolume(t, s, "to", 4<<20)
	missing, err := to.MapKnown(ctx, otherStore, 0, []Run{namedRun(0, vals)})
	must.Succeed(t, err)
	if len(missing) == 0 {
		t.Error("wrong slots were taken for right")
	}
	p := make([]byte, len(vals)*sector)
	must.Succeed(t, to.ReadAt(ctx, p, 0))
	for _, m := range missing {
		copy(p[m.Offset:m.End()], content(vals)[m.Offset:])
	}
	if !bytes.Equal(p, content(vals)) {
		t.Error("a block was mapped to another one's data")
	}
	requireSound(t, s)
}

// TestKnown_Concurrent: names are added and used while what they name goes away, is moved,
// and is stored.
func TestKnown_Concurrent(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d := newDisk()
	s, err := Open(ctx, d.options(Options{DedupUnit: 4 << 10, tuning: tuning{leastNames: 256, segmentBlocks: planBlocks + 8}}))
	must.Succeed(t, err)
	const perBlock = BlockLength / sector
	vals := make([]uint32, 512*perBlock)
	for i := range vals {
		vals[i] = uint32(i/perBlock) + 1
	}
	part := func(first, n int) ([]byte, []Run) {
		own := vals[first*perBlock : (first+n)*perBlock]
		return content(own), []Run{namedRun(first, own)}
	}
	var others sync.WaitGroup
	loop := func(seed uint64, do func(rng *rand.Rand) error) {
		others.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for ctx.Err() == nil {
				if err := do(rng); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	mapped := atomic.Int64{}
	for g := range uint64(2) {
		v := createVolume(t, s, fmt.Sprint("v", g), 4<<20)
		loop(g, func(rng *rand.Rand) error {
			first := rng.IntN(400)
			data, runs := part(first, 1+rng.IntN(100))
			off := rng.Int64N(300) * BlockLength
			if rng.IntN(3) == 0 {
				return v.Unmap(ctx, off, int64(len(data)))
			}
			missing, err := v.MapKnown(ctx, otherStore, off, runs)
			if err != nil {
				return err
			}
			mapped.Add(int64(len(data)))
			for _, m := range missing {
				mapped.Add(-m.Length)
				lo := int(m.Offset-off) / BlockLength
				p, r := part(first+lo, int(m.Length/BlockLength))
				if err := v.WriteKnown(ctx, otherStore, p, m.Offset, r); err != nil {
					return err
				}
			}
			p := make([]byte, len(data))
			if err := v.ReadAt(ctx, p, off); err != nil {
				return err
			}
			if !bytes.Equal(p, data) {
				return errors.New("a block has another one's data")
			}
			return nil
		})
	}
	loop(9, func(rng *rand.Rand) error {
		return []func(context.Context) error{s.Checkpoint, s.Clean, s.pruneNames, s.Flush}[rng.IntN(4)](ctx)
	})
	for i := 0; i < 40 || mapped.Load() == 0 && i < 10_000; i++ { // some rounds of everything
		must.Succeed(t, s.Checkpoint(ctx))
	}
	cancel()
	others.Wait()
	if mapped.Load() == 0 {
		t.Error("nothing was mapped")
	}
	findings, err := s.Check(context.Background())
	if err != nil || len(findings) > 0 {
		t.Errorf("check: %v %v", findings, err)
	}
	must.Succeed(t, s.Close())
}

// TestKnown_Repair: a store that is only read lists names and maps nothing; a repair drops
// the names of other stores and keeps the series of its own.
func TestKnown_Repair(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	v := createVolume(t, s, "v", 4<<20)
	vals := slices.Repeat([]uint32{1, 2, 3, 4, 5, 6, 7, 8}, 4)
	must.Succeed(t, v.WriteKnown(ctx, otherStore, content(vals), 0, []Run{namedRun(0, vals)}))
	names := func(s *Store) []Run {
		v, err := s.Volume("v")
		must.Succeed(t, err)
		return collectRuns(t, pin(t, v), 0, 64<<10)
	}
	before := names(s)
	must.Succeed(t, s.Close())

	o := d.options(Options{})
	o.ReadOnly = true
	s, err := Open(ctx, o)
	must.Succeed(t, err)
	if got := names(s); !reflect.DeepEqual(got, before) {
		t.Errorf("a store that is only read has other names: %v, want %v", got, before)
	}
	v, err = s.Volume("v")
	must.Succeed(t, err)
	if _, err := v.MapKnown(ctx, otherStore, 1<<20, []Run{namedRun(0, vals)}); !errors.Is(err, ErrStoreReadOnly) {
		t.Errorf("mapping in a store that is only read: %v", err)
	}
	must.Succeed(t, s.Close())

	_, err = Repair(ctx, RepairOptions{Options: d.options(Options{})})
	must.Succeed(t, err)
	s = d.open(t, 4<<10)
	defer func() { must.Succeed(t, s.Close()) }()
	if got := names(s); !reflect.DeepEqual(got, before) {
		t.Errorf("after a repair, names are %v, want %v", got, before)
	}
	v, err = s.Volume("v")
	must.Succeed(t, err)
	missing, err := v.MapKnown(ctx, otherStore, 1<<20, []Run{namedRun(0, vals)})
	must.Succeed(t, err)
	if len(missing) != 1 || missing[0].Length != int64(len(vals))*sector {
		t.Errorf("after a repair, %v is missing", missing)
	}
	requireSound(t, s)
}

// TestVolume_WriteKnown_Sums: the checksums that came with the data are those of the blocks that
// are stored, with zeros among them, over several runs and steps.
func TestVolume_WriteKnown_Sums(t *testing.T) {
	const blocks, off = 700, 3 * BlockLength
	b := newDisk().open(t, 16<<10)
	defer b.Close()
	v := createVolume(t, b, "v", 8<<20)
	data := randomBytes(7, blocks*BlockLength)
	clear(data[10*BlockLength : 12*BlockLength])
	clear(data[300*BlockLength : 301*BlockLength])
	var runs []Run
	for at, n := 0, 0; at < blocks; at += n {
		n = min(333, blocks-at)
		r := Run{Off: int64(at) * BlockLength, Length: int64(n) * BlockLength, Series: 1}
		for k := at; k < at+n; k++ {
			r.Slots = append(r.Slots, uint64(k+1))
			r.CRC = append(r.CRC, crc32.Checksum(data[k*BlockLength:(k+1)*BlockLength], castagnoli))
		}
		runs = append(runs, r)
	}
	must.Succeed(t, v.WriteKnown(context.Background(), [16]byte{1}, data, off, runs))
	got := make([]byte, len(data))
	must.Succeed(t, v.ReadAt(context.Background(), got, off)) // which compares them
	if !bytes.Equal(got, data) {
		t.Error("other data")
	}
	n := 0
	for _, r := range collectRuns(t, pin(t, v), off, int64(len(data))) {
		for k, sum := range r.CRC {
			at := int(r.Off-off) + k*BlockLength
			if n++; sum != crc32.Checksum(data[at:at+BlockLength], castagnoli) {
				t.Fatalf("block %d has another checksum", at/BlockLength)
			}
		}
	}
	if n != blocks-3 {
		t.Errorf("%d checksums, want %d", n, blocks-3)
	}
}
