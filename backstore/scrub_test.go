package backstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"odx/backstore/layout"
)

// scrubbed scrubs a store to the end.
func scrubbed(t *testing.T, s *Store) ScrubResult {
	t.Helper()
	r, err := s.Scrub(context.Background(), ScrubOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// uses returns the ranges of a damage in words, sorted.
func uses(d Damage) string {
	var all []string
	for _, u := range d.Uses {
		who := "snapshot"
		if u.Volume != "" {
			who = u.Volume
		}
		all = append(all, fmt.Sprintf("%s %d+%d", who, u.Offset, u.Length))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestScrubReadsEveryExtent(t *testing.T) {
	for _, unit := range []int{4 << 10, 16 << 10} {
		s := newDisk().open(t, unit)
		v := createVolume(t, s, "v", 64<<20)
		if err := v.WriteAt(t.Context(), randomBytes(1, 3<<20), 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := v.WriteAt(t.Context(), randomBytes(2, 4096), 40<<20); err != nil {
			t.Fatal(err)
		}
		var seen []ScrubProgress
		r, err := s.Scrub(t.Context(), ScrubOptions{Progress: func(p ScrubProgress) { seen = append(seen, p) }})
		if err != nil {
			t.Fatal(err)
		}
		const live = 3<<20 + 4096
		if want := (ScrubResult{ScrubProgress: ScrubProgress{live, live, 0}, Damages: []Damage{}}); !reflect.DeepEqual(r, want) {
			t.Errorf("unit %d: got %+v, want %+v", unit, r, want)
		}
		if len(seen) < 3 || seen[0].ReadBytes != 0 || seen[len(seen)-1] != r.ScrubProgress ||
			!slices.IsSortedFunc(seen, func(a, b ScrubProgress) int { return int(a.ReadBytes - b.ReadBytes) }) {
			t.Errorf("unit %d: progress %v", unit, seen)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestScrubTellsWhoUsesDamage: a volume, its clone, another volume with equal
// data elsewhere, and the part of a snapshot that shows it.
func TestScrubTellsWhoUsesDamage(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	data := randomBytes(1, 1<<20)
	v := createVolume(t, s, "v", 8<<20)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CloneVolume(ctx, "v", "clone"); err != nil {
		t.Fatal(err)
	}
	if err := createVolume(t, s, "copy", 4<<20).WriteAt(ctx, data, 3<<20); err != nil {
		t.Fatal(err)
	}
	const at = 5 * BlockLength // of the damage
	half, err := v.Snapshot(ctx, []Range{{Offset: at + 512, Length: 1 << 16}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Release()
	beside, err := v.Snapshot(ctx, []Range{{Offset: at + BlockLength, Length: 1 << 16}, {Offset: 4 << 20, Length: 4096}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Release()
	damageFiles(t, d, data[at:][:16])
	r := scrubbed(t, s)
	if r.Damaged != 1 || len(r.Damages) != 1 || r.ReadBytes != r.TotalBytes {
		t.Fatalf("got %+v", r)
	}
	got := r.Damages[0]
	const want = "clone 20480+4096, copy 3166208+4096, snapshot 20992+3584, v 20480+4096"
	if uses(got) != want || got.MoreUses != 0 {
		t.Errorf("used by %s\nwant    %s", uses(got), want)
	}
	if got.Segment != "00000001" || got.Block != 5 || got.Blocks != 4 || got.Reason != "block 6: data does not match its CRC-32C" {
		t.Errorf("got %+v", got)
	}
}

// TestScrubComparesFingerprints: a CRC has collisions, which are easy to make.
func TestScrubComparesFingerprints(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 16<<10)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	// CRC-32C is linear: data that differs by the generator polynomial, here as
	// bits in the order in which the CRC takes them, has the same CRC.
	const generator = 1 | 0x82F63B78<<1
	xor := make([]byte, 8)
	binary.LittleEndian.PutUint64(xor, generator)
	rewrite(t, d, data[8192:][:16], func(p []byte) {
		for i, b := range xor {
			p[i] ^= b
		}
	})
	if err := v.ReadAt(ctx, make([]byte, 4096), 8192); err != nil {
		t.Fatalf("the test's collision is none: %v", err)
	}
	r := scrubbed(t, s)
	if len(r.Damages) != 1 || r.Damages[0].Reason != errFingerprint.Error() || uses(r.Damages[0]) != "v 0+16384" {
		t.Errorf("got %+v", r.Damages)
	}
	// From now on it is known to be wrong.
	if err := v.ReadAt(ctx, make([]byte, 4096), 8192); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read of data that a scrub found to be wrong: %v", err)
	}
	if r = scrubbed(t, s); len(r.Damages) != 1 || uses(r.Damages[0]) != "v 0+16384" {
		t.Errorf("a second scrub got %+v", r.Damages)
	}
}

// rewrite changes the stored data that begins like this.
func rewrite(t *testing.T, d *disk, like []byte, change func(p []byte)) {
	t.Helper()
	for name, p := range segmentFiles(t, d) {
		at := strings.Index(string(p), string(like))
		if at < 0 {
			continue
		}
		f, err := d.fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		part := p[at : at+len(like)]
		change(part)
		if _, err := f.WriteAt(part, int64(at)); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("the data is nowhere in the segments")
}

// segmentFiles returns the contents of the segments by path.
func segmentFiles(t *testing.T, d *disk) map[string][]byte {
	t.Helper()
	names, err := d.fs.List("/store/" + layout.SegmentDir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range names {
		path := filepath.Join("/store", layout.SegmentDir, name)
		f, err := d.fs.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		p := make([]byte, size)
		if _, err := f.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		files[path] = p
		f.Close()
	}
	return files
}

// TestScrubOfLostSegment: a file that is gone damages all that was in it; the
// report stays within its bounds and counts everything.
func TestScrubOfLostSegment(t *testing.T) {
	const size = 6 << 20
	d := newDisk()
	s := d.open(t, 4<<10)
	v := createVolume(t, s, "v", size)
	if err := v.WriteAt(t.Context(), randomBytes(1, size), 0); err != nil {
		t.Fatal(err)
	}
	// One block is used in more places than are listed.
	w := createVolume(t, s, "w", 8<<20)
	block := randomBytes(1, size)[:BlockLength]
	for off := int64(0); off < 2*(maxUses+10)*BlockLength; off += 2 * BlockLength {
		if err := w.WriteAt(t.Context(), block, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for path := range segmentFiles(t, d) {
		if err := d.fs.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	s = d.open(t, 4<<10)
	defer s.Close()
	r := scrubbed(t, s)
	if r.Damaged != size/BlockLength || len(r.Damages) != maxDamages {
		t.Errorf("%d damaged extents, %d described, of %d", r.Damaged, len(r.Damages), size/BlockLength)
	}
	first := r.Damages[0]
	if !strings.Contains(first.Reason, "open segment 00000001") || len(first.Uses) != maxUses || first.MoreUses != 11 {
		t.Errorf("%s, %d uses and %d more", first.Reason, len(first.Uses), first.MoreUses)
	}
}

// TestScrubBesideWritersAndCleaning: what is freed, moved and deleted while the
// scrub runs is not damage.
func TestScrubBesideWritersAndCleaning(t *testing.T) {
	const size = 8 << 20
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", size)
	if err := v.WriteAt(ctx, randomBytes(1, size), 0); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := uint64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			off := int64(i*37%(size>>15)) << 15
			if err := v.WriteAt(ctx, randomBytes(i, 20<<10), off); err != nil {
				t.Error(err)
			}
			if i%20 == 0 {
				if err := s.Clean(ctx); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 5 {
		if r := scrubbed(t, s); r.Damaged != 0 || r.ReadBytes == 0 {
			t.Errorf("got %+v", r)
		}
	}
	close(stop)
	busy.Wait()
}

func TestScrubEnds(t *testing.T) {
	s := newDisk().open(t, 4<<10)
	v := createVolume(t, s, "v", 8<<20)
	if err := v.WriteAt(t.Context(), randomBytes(1, 8<<20), 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Scrub(ctx, ScrubOptions{Progress: func(p ScrubProgress) {
		if p.ReadBytes > 0 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || r.ReadBytes == 0 || r.ReadBytes == r.TotalBytes {
		t.Errorf("canceled after the first read: %+v, %v", r, err)
	}
	if _, err := s.Scrub(t.Context(), ScrubOptions{BytesPerSecond: -1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("negative rate: %v", err)
	}
	_, err = s.Scrub(t.Context(), ScrubOptions{Progress: func(p ScrubProgress) {
		if p.ReadBytes > 0 && !s.life.closed.Load() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.Is(err, ErrClosed) {
		t.Errorf("closed after the first read: %v", err)
	}
}

// TestScrubKeepsToItsBudget: with a byte a second, a second mebibyte has no hour
// to spare, which the limiter knows at once.
func TestScrubKeepsToItsBudget(t *testing.T) {
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	if err := createVolume(t, s, "v", 4<<20).WriteAt(t.Context(), randomBytes(1, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	r, err := s.Scrub(ctx, ScrubOptions{BytesPerSecond: 1})
	if err == nil || r.ReadBytes > scrubRead {
		t.Errorf("scrub at a byte a second read %d bytes: %v", r.ReadBytes, err)
	}
}
