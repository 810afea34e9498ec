package backstore

import (
	"context"
	"errors"
	"hash/crc32"
	"testing"

	"odx/internal/kit/must"
)

// pin returns a snapshot of ranges that the test releases and the store does not keep.
func pin(tb testing.TB, v *Volume, ranges ...Range) *Snapshot {
	tb.Helper()
	if len(ranges) == 0 {
		ranges = []Range{{Length: v.Size()}}
	}
	n, err := v.Snapshot(context.Background(), ranges, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(n.Release)
	return n
}

// collectRuns returns copies of the runs of a part of a snapshot.
func collectRuns(tb testing.TB, n *Snapshot, off, length int64) []Run {
	tb.Helper()
	var runs []Run
	err := n.Runs(context.Background(), off, length, func(r Run) error {
		r.Slots, r.CRC = append([]uint64(nil), r.Slots...), append([]uint32(nil), r.CRC...)
		runs = append(runs, r)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return runs
}

// TestSnapshot_Runs: what runs say of holes, of blocks and of parts of blocks.
func TestSnapshot_Runs(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 8<<20)
	data := randomBytes(1, 6*BlockLength)
	must.Succeed(t, v.WriteAt(ctx, data, 510*BlockLength)) // two leaves of the map
	whole := Range{Length: 8 << 20}
	for _, c := range []struct {
		name   string
		ranges []Range
		want   []Run // Slots say how many there are
	}{
		{"whole", []Range{whole}, []Run{
			{Off: 0, Length: 510 * BlockLength, Hole: true},
			{Off: 510 * BlockLength, Length: 2 * BlockLength, Slots: make([]uint64, 2)},
			{Off: 512 * BlockLength, Length: 4 * BlockLength, Slots: make([]uint64, 4)},
			{Off: 516 * BlockLength, Length: (2048 - 516) * BlockLength, Hole: true},
		}},
		{"ends within blocks", []Range{{Offset: 512*BlockLength + 512, Length: 2 * BlockLength}}, []Run{{Off: 0, Length: 2 * BlockLength}}},
		{"ends within a block", []Range{{Offset: 512 * BlockLength, Length: 2*BlockLength + 512}}, []Run{
			{Off: 0, Length: 2 * BlockLength, Slots: make([]uint64, 2)},
			{Off: 2 * BlockLength, Length: 512},
		}},
		{"two ranges", []Range{{Offset: 511*BlockLength + 512, Length: BlockLength - 512}, {Offset: 512 * BlockLength, Length: 512}, {Length: BlockLength}, {Offset: 513 * BlockLength, Length: BlockLength}}, []Run{
			{Off: 0, Length: BlockLength},
			{Off: BlockLength, Length: BlockLength, Hole: true},
			{Off: 2 * BlockLength, Length: BlockLength, Slots: make([]uint64, 1)},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := pin(t, v, c.ranges...)
			got := collectRuns(t, n, 0, n.Length())
			if len(got) != len(c.want) {
				t.Fatalf("%d runs, want %d: %v", len(got), len(c.want), got)
			}
			for i, r := range got {
				w := c.want[i]
				if r.Off != w.Off || r.Length != w.Length || r.Hole != w.Hole || len(r.Slots) != len(w.Slots) {
					t.Errorf("run %d is %v, want %v", i, r, w)
				}
				for k, crc := range r.CRC {
					p := make([]byte, BlockLength)
					must.Succeed(t, n.ReadAt(ctx, p, r.Off+int64(k)*BlockLength))
					if crc32.Checksum(p, castagnoli) != crc {
						t.Errorf("run %d has another checksum for block %d than its data", i, k)
					}
				}
			}
		})
	}
	n := pin(t, v)
	stop := errors.New("stop")
	if err := n.Runs(ctx, 0, n.Length(), func(Run) error { return stop }); err != stop {
		t.Errorf("runs that fn ends: %v", err)
	}
	if err := n.Runs(ctx, 1, n.Length(), func(Run) error { return nil }); !errors.Is(err, ErrRange) {
		t.Errorf("runs beyond the end: %v, want ErrRange", err)
	}
}

// TestVolume_WriteKnown_Refused: nothing is written of bytes that do not have the
// checksums of their runs, nor of runs that contradict themselves.
func TestVolume_WriteKnown_Refused(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 4*BlockLength)
	must.Succeed(t, v.WriteAt(ctx, data, 0))
	runs := collectRuns(t, pin(t, v), 0, 4*BlockLength)
	to := createVolume(t, s, "to", 1<<20)
	for name, c := range map[string]struct {
		change func(p []byte, r *Run)
		want   error
	}{
		"data":      {func(p []byte, _ *Run) { p[3*BlockLength] ^= 1 }, ErrCorrupt},
		"checksum":  {func(_ []byte, r *Run) { r.CRC[2]++ }, ErrCorrupt},
		"checksums": {func(_ []byte, r *Run) { r.CRC = r.CRC[1:] }, ErrInvalid},
		"length":    {func(_ []byte, r *Run) { r.Length -= BlockLength }, ErrInvalid},
		"hole":      {func(_ []byte, r *Run) { r.Hole = true }, ErrInvalid},
	} {
		p, r := append([]byte(nil), data...), runs[0]
		r.CRC = append([]uint32(nil), r.CRC...)
		c.change(p, &r)
		if err := to.WriteKnown(ctx, [16]byte{1}, p, 0, []Run{r}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err := to.Extents(ctx, 0, 1<<20, func(_ Range, mapped bool) bool {
			if mapped {
				t.Errorf("%s: something was written", name)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	must.Succeed(t, to.WriteKnown(ctx, [16]byte{1}, data, 0, runs))
}
