package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"odx/backstore/layout"
	"odx/backstore/rows"
	"odx/backstore/segment"
	"odx/internal/kit/logs"
	"odx/internal/kit/sample"
)

// crammed is a store on a disk on which another program takes every block that is
// free, as often as it is let.
type crammed struct {
	t     *testing.T
	disk  *disk
	store *Store
	want  []byte
	last  error // of write
	log   logs.Text

	segmentBlocks uint32
}

const crammedBytes = 32 << 20

func newCrammed(t *testing.T) *crammed {
	c := &crammed{t: t, disk: newDisk(), want: make([]byte, crammedBytes), segmentBlocks: planBlocks + 1}
	c.open()
	createVolume(t, c.store, "v", crammedBytes)
	return c
}

func (c *crammed) open() {
	c.t.Helper()
	o := c.disk.options(Options{DedupUnit: 4 << 10, CacheBytes: 4 << 20, StoreDuplicates: true, tuning: tuning{segmentBlocks: c.segmentBlocks}})
	o.Log = c.log.Entry()
	var err error
	if c.store, err = Open(context.Background(), o); err != nil {
		c.t.Fatalf("open: %v", err)
	}
}

// reopen opens the store with segments of another length.
func (c *crammed) reopen(segmentBlocks uint32) {
	c.t.Helper()
	if err := c.store.Close(); err != nil {
		c.t.Fatalf("close: %v", err)
	}
	c.segmentBlocks = segmentBlocks
	c.open()
}

func (c *crammed) volume() *Volume {
	c.t.Helper()
	v, err := c.store.Volume("v")
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// cram takes what is free.
func (c *crammed) cram() {
	c.disk.fs.SetCapacity(c.disk.fs.Used())
	c.store.space.measure()
}

// write writes at a random place and reports whether there was room.
func (c *crammed) write(rng *rand.Rand) bool {
	c.t.Helper()
	off := rng.IntN(crammedBytes>>20) << 20
	p := randomBytes(rng.Uint64(), 1<<20)
	err := c.volume().WriteAt(context.Background(), p, int64(off))
	if err != nil && !errors.Is(err, ErrNoSpace) {
		c.t.Fatalf("write: %v", err)
	}
	if c.last = err; err == nil {
		copy(c.want[off:], p)
	}
	return err == nil
}

func (c *crammed) unmap(off, length int) {
	c.t.Helper()
	if err := c.volume().Unmap(context.Background(), int64(off), int64(length)); err != nil {
		c.t.Fatalf("unmap: %v", err)
	}
	clear(c.want[off : off+length])
}

// same compares the volume with what it must hold.
func (c *crammed) same() {
	c.t.Helper()
	got := make([]byte, crammedBytes)
	if err := c.volume().ReadAt(context.Background(), got, 0); err != nil || !bytes.Equal(got, c.want) {
		c.t.Fatalf("other data is read, or %v", err)
	}
}

// writesGoOn waits until writes work again.
func (c *crammed) writesGoOn(rng *rand.Rand) {
	c.t.Helper()
	defer func() {
		if c.t.Failed() {
			c.t.Logf("writes do not go on: %v\n%s", c.last, c.files())
		}
	}()
	waitFor(c.t, "writes go on", func() bool { return c.write(rng) })
}

// files lists the files of the store and their lengths.
func (c *crammed) files() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d bytes live, %d lacking, low %v, room %d, missing %d and %d, reserved %d\n", c.store.LiveBytes(), c.store.space.lackingBytes(), c.store.space.low.Load(), c.store.parts.segments.RoomBytes(), c.store.parts.segments.MissingBytes(), c.store.space.reserve.MissingBytes(), c.store.parts.segments.ReserveBytes())
	for _, dir := range []string{layout.CheckpointDir, layout.ReserveDir, layout.SegmentDir, layout.JournalDir} {
		names, _ := c.disk.fs.List("/store/" + dir)
		for _, name := range names {
			f, err := c.disk.fs.Open("/store/" + dir + "/" + name)
			if err == nil {
				size, _ := f.Size()
				live := int64(0)
				if dir == layout.SegmentDir {
					var id segment.ID
					fmt.Sscanf(name, "%08x", &id)
					live = c.store.parts.usage.Live(id)
				}
				fmt.Fprintf(&b, "%s/%s %d %d\n", dir, name, size, live)
				f.Close()
			}
		}
	}
	return b.String()
}

// must does something for which a full disk is no reason to fail.
func (c *crammed) must(what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s on a full disk: %v\n%s", what, err, c.files())
	}
}

// TestFullDisk: on a disk without a free block the store opens, reads, flushes,
// unmaps, cleans and closes; after an unmap it writes again by itself, though what
// it frees is not free for anyone else.
func TestFullDisk(t *testing.T) {
	rounds := sample.Size(3, 6, 6) // each third is of the same kind
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(1, 8))
	c := newCrammed(t)
	for round := range rounds {
		c.disk.fs.SetCapacity(0)
		for off := 0; off < crammedBytes; off += 1 << 20 {
			copy(c.want[off:], randomBytes(rng.Uint64(), 1<<20))
		}
		c.must("write", c.volume().WriteAt(ctx, c.want, 0))
		c.must("checkpoint", c.store.Checkpoint(ctx))
		waitFor(t, "the reserve is whole", func() bool { return c.store.space.fillReserve() == nil })
		c.cram()
		c.must("flush", c.store.Flush(ctx))
		c.must("record", c.store.PutRecords(ctx, Record{Key: []byte("key"), Value: []byte{byte(round)}}))
		switch round % 3 {
		case 1:
			c.must("close", c.store.Close())
			c.open()
		case 2: // the process is killed
			c.kill()
		}
		c.same()
		c.cram()
		// A bit of every segment, so that only cleaning makes room.
		for off := rng.IntN(128) << 12; off+(128<<12) <= crammedBytes; off += 256 << 12 {
			c.unmap(off, 128<<12)
		}
		waitFor(t, "writes go on after an unmap", func() bool { return c.write(rng) })
		c.cram()
		for range crammedBytes >> 20 { // until it is full again
			c.write(rng)
		}
		c.same()
	}
	c.disk.fs.SetCapacity(0)
	findings, err := c.store.Check(ctx)
	if err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	c.must("close", c.store.Close())
}

// TestFullDisk_EachBlockTaken: where another program takes every block that the store
// gives up, at once, and space is freed in small pieces all over the disk, UNMAP,
// checkpoints, cleaning, stops, kills and restarts go on without end; writes come back
// when there is as much dead data as they need, and when the disk has room again.
func TestFullDisk_EachBlockTaken(t *testing.T) {
	for seed := range sample.Size[uint64](1, 2, 8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			eachBlockTaken(t, seed)
		})
	}
}

func eachBlockTaken(t *testing.T, seed uint64) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 9))
	c := newCrammed(t)
	if seed%2 == 1 { // cleaning moves a segment in several steps
		c.reopen(8*planBlocks + 1)
	}
	late := seed%4 >= 2 // the other program takes what is free a moment later
	for off := 0; off < crammedBytes; off += 1 << 20 {
		copy(c.want[off:], randomBytes(rng.Uint64(), 1<<20))
	}
	for off := 0; off < crammedBytes; { // so that segments have different lengths
		length := min((1+rng.IntN(90))<<12, crammedBytes-off)
		c.must("write", c.volume().WriteAt(ctx, c.want[off:off+length], int64(off)))
		off += length
	}
	c.must("checkpoint", c.store.Checkpoint(ctx))
	waitFor(t, "the reserve is whole", func() bool { return c.store.space.fillReserve() == nil })
	c.disk.fs.SetTaken(true)
	c.cram()
	piece := 4 << 10 << rng.IntN(5)
	pieces := rng.Perm(crammedBytes / piece)
	step := max(len(pieces)/256, 1)
	for i, at := range pieces[:len(pieces)*7/8] {
		c.unmap(at*piece, piece)
		if i%step > 0 {
			continue
		}
		if late {
			c.disk.fs.SetCapacity(c.disk.fs.Used())
			c.disk.fs.SetTaken(rng.IntN(2) == 0)
		}
		switch rng.IntN(40) {
		case 0:
			if i < len(pieces)/2 { // what it gives up is lost
				c.must("clean", c.store.Clean(ctx))
			}
		case 1:
			c.must("close", c.store.Close())
			c.open()
		case 2:
			c.kill()
		case 3, 4, 5, 6, 7, 8:
			c.must("checkpoint", c.store.Checkpoint(ctx))
		case 9, 10:
			if _, err := c.store.parts.kv.Get([]byte(rows.CheckpointKey)); err != nil {
				t.Fatal(err)
			}
			c.same()
		}
	}
	c.disk.fs.SetTaken(true)
	c.disk.fs.SetCapacity(c.disk.fs.Used())
	c.same()
	c.writesGoOn(rng)
	for range crammedBytes >> 20 { // until it is full again
		c.write(rng)
	}
	c.same()
	c.must("close", c.store.Close())
	c.open()
	c.disk.fs.SetCapacity(0)
	waitFor(t, "writes go on where there is room", func() bool { return c.write(rng) })
	c.same()
	findings, err := c.store.Check(ctx)
	if err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	c.must("close", c.store.Close())
}

// kill ends the process after a flush, and opens what it leaves.
func (c *crammed) kill() {
	c.t.Helper()
	c.must("flush", c.store.Flush(context.Background()))
	old := c.store
	c.disk = &disk{fs: c.disk.fs.ProcessClone()}
	if err := old.Close(); err != nil && !errors.Is(err, ErrNoSpace) {
		c.t.Fatal(err)
	}
	c.open()
}

// TestCapacity: what the store takes on the disk stays within 2 % or 256 MiB of the
// capacity, though it is written over again and again, and writes do not fail while
// their data fits.
func TestCapacity(t *testing.T) {
	const capacity = 8 << 20
	ctx := context.Background()
	d := newDisk()
	s, err := Open(ctx, d.options(Options{
		DedupUnit: 4 << 10, CacheBytes: 4 << 20, StoreDuplicates: true, CapacityBytes: capacity, tuning: tuning{segmentBlocks: planBlocks + 1, slackBytes: 96 << 20},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", 2*capacity)
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 200 {
		// What is written over counts until it is written.
		off := int64(rng.IntN(capacity>>20-1))<<20 + int64(rng.IntN(2))*64<<10
		length := min(1<<20, capacity-1<<20-off)
		if err := v.WriteAt(ctx, randomBytes(uint64(i), int(length)), off); err != nil {
			t.Fatalf("write %d of data that fits: %v, %d bytes live, %d on the disk", i, err, s.LiveBytes(), s.DiskBytes())
		}
		if used := d.fs.Used(); used > capacity+96<<20 {
			t.Fatalf("after write %d, %d bytes are used on the disk", i, used)
		}
	}
	if err := v.WriteAt(ctx, randomBytes(999, capacity), capacity); !errors.Is(err, ErrNoSpace) {
		t.Errorf("write beyond the capacity: %v, want ErrNoSpace", err)
	}
	if got, want := s.DiskBytes(), d.fs.Used(); got < want-(2<<20) || got > want+(4<<20) {
		t.Errorf("the store says that it takes %d bytes, the disk %d", got, want)
	}
}

// TestCapacity_Moved: what cleaning has moved counts, since its old place is there until
// a checkpoint; and what is kept for a full disk leaves room for it beyond the capacity.
func TestCapacity_Moved(t *testing.T) {
	const capacity = 1 << 30
	ctx := context.Background()
	s, err := Open(ctx, newDisk().options(Options{DedupUnit: 4 << 10, CacheBytes: 1 << 30, CapacityBytes: capacity}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if kept := s.space.reserve.FileBytes() * reserveFiles; kept > s.space.slack()/4 {
		t.Errorf("%d bytes are kept for checkpoints, and the store may take %d more than its capacity", kept, s.space.slack())
	}
	v := createVolume(t, s, "v", 4<<20)
	for i := range uint64(2) {
		if err := v.WriteAt(ctx, randomBytes(i, 2<<20), int64(i)<<20); err != nil {
			t.Fatal(err)
		}
	}
	s.parts.segments.Seal()
	sealed, _, _ := s.cleaner.sealedSegments()
	if len(sealed) != 1 || sealed[0].live == 0 {
		t.Fatalf("segments: %+v", sealed)
	}
	s.space.measure()
	before := s.space.disk.Load()
	if err := s.cleaner.cleanSegment(ctx, sealed[0].id, rate.NewLimiter(rate.Inf, 0)); err != nil {
		t.Fatal(err)
	}
	if grown, want := s.space.disk.Load()-before, sealed[0].live*BlockLength; grown < want {
		t.Errorf("the store takes %d bytes more, and %d were moved", grown, want)
	}
}

// TestFreeBytes: what new data does not get is not said to be free, and a store that is
// only read says the same of its space as the one that was open.
func TestFreeBytes(t *testing.T) {
	ctx := context.Background()
	c := newCrammed(t)
	c.must("write", c.volume().WriteAt(ctx, randomBytes(1, 4<<20), 0))
	c.must("unmap", c.volume().Unmap(ctx, 0, 1<<20))
	waitFor(t, "the reserve is whole", func() bool { return c.store.space.fillReserve() == nil })
	c.must("checkpoint", c.store.Checkpoint(ctx))
	c.must("close", c.store.Close())
	figures := func(readOnly bool) (free, reclaimable int64) {
		t.Helper()
		o := c.disk.options(Options{DedupUnit: 4 << 10, CacheBytes: 4 << 20, ReadOnly: readOnly, tuning: tuning{segmentBlocks: planBlocks + 1}})
		s, err := Open(ctx, o)
		c.must("open", err)
		defer s.Close()
		st, err := s.Stats(ctx)
		c.must("stats", err)
		free, err = s.FreeBytes()
		c.must("free", err)
		return free, st.ReclaimableBytes
	}
	c.disk.fs.SetCapacity(c.disk.fs.Used() + 8<<20)
	free, reclaimable := figures(true)
	if served, from := figures(false); served < free-(1<<20) || served > free+(1<<20) || from != reclaimable {
		t.Errorf("%d bytes are free and %d reclaimable of a store that is only read, of one in use %d and %d", free, reclaimable, served, from)
	}
	c.open()
	c.store.parts.segments.Seal()
	c.store.space.dropSpares(time.Now())
	c.disk.fs.SetCapacity(c.disk.fs.Used() + lowSpace/2)
	c.store.space.measure()
	if free, err := c.store.FreeBytes(); err != nil || free > 0 || c.write(rand.New(rand.NewPCG(1, 1))) {
		t.Errorf("on a full disk %d bytes are free, %v", free, err)
	}
	c.must("close", c.store.Close())
}

// TestFullDisk_Log: the log says why there is no room where the reserve is whole.
func TestFullDisk_Log(t *testing.T) {
	c := newCrammed(t)
	waitFor(t, "the reserve is whole", func() bool { return c.store.space.fillReserve() == nil })
	c.store.parts.segments.Seal()
	c.store.space.dropSpares(time.Now())
	c.disk.fs.SetCapacity(c.disk.fs.Used() + lowSpace/2)
	c.store.space.measure()
	if text := c.log.String(); !strings.Contains(text, `error="no space left in the store: less than 1048576 bytes are free"`) {
		t.Errorf("the file system became full: %s", text)
	}
	c.disk.fs.SetCapacity(0)
	c.store.space.measure()
	if text := c.log.String(); strings.Count(text, "has room again") != 1 {
		t.Errorf("the file system has room again: %s", text)
	}
	c.must("close", c.store.Close())
}

// TestRoomFor: what the log says is free is what made the difference.
func TestRoomFor(t *testing.T) {
	lacks := fmt.Errorf("%w: the reserve", ErrNoSpace)
	for _, tt := range []struct {
		free, own int64
		missing   error
		room      int64
		full      bool
	}{
		{free: 0, own: lowSpace, room: lowSpace},
		{free: lowSpace / 2, own: lowSpace / 2, room: lowSpace},
		{free: lowSpace / 2, own: lowSpace/2 - 1, room: lowSpace - 1, full: true},
		{free: 5 * lowSpace, own: lowSpace, room: 5 * lowSpace},
		{free: 5 * lowSpace, missing: lacks, room: 5 * lowSpace, full: true},
	} {
		room, err := roomFor(tt.free, tt.own, tt.missing)
		if room != tt.room || errors.Is(err, ErrNoSpace) != tt.full || tt.missing != nil && err != tt.missing {
			t.Errorf("%d and %d free: %d, %v", tt.free, tt.own, room, err)
		}
	}
}

// TestFullDisk_Killed: a process that is killed costs a spare file of the journal, since
// records go on in another file than the one that it wrote to. On a full disk one is killed
// after the other: records and flushes go on, though no spare file is left in between, and a
// checkpoint gives all of them back.
func TestFullDisk_Killed(t *testing.T) {
	ctx := t.Context()
	c := newCrammed(t)
	c.must("checkpoint", c.store.Checkpoint(ctx))
	waitFor(t, "the reserve is whole", func() bool {
		return c.store.space.fillReserve() == nil && c.store.parts.journal.FileBytes() >= 3*c.store.space.journalFile
	})
	c.disk.fs.SetTaken(true)
	c.cram()
	lacking := 0
	for round := range byte(8) {
		c.must("record", c.store.PutRecords(ctx, Record{Key: []byte{'k', round}, Value: []byte{round}}))
		c.must("flush", c.store.Flush(ctx))
		c.kill()
		c.cram()
		if c.store.parts.journal.Lacks() {
			lacking++
		}
		for k := range round + 1 {
			if value, err := c.store.GetRecord([]byte{'k', k}); err != nil || !bytes.Equal(value, []byte{k}) {
				t.Errorf("round %d: record %d: %q, %v", round, k, value, err)
			}
		}
	}
	if lacking == 0 {
		t.Error("there was a spare file for each process")
	}
	c.must("record", c.store.PutRecords(ctx, Record{Key: []byte("k"), Value: []byte("v")}))
	c.must("checkpoint", c.store.Checkpoint(ctx))
	if c.store.parts.journal.Lacks() {
		t.Errorf("spare files are missing after a checkpoint\n%s", c.files())
	}
	c.same()
	c.must("close", c.store.Close())
}
