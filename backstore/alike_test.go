package backstore

import (
	"context"
	"errors"
	"slices"
	"testing"

	"odx/internal/kit/must"
)

// printsOf returns the fingerprints, by the key of a volume, of a snapshot of another store.
func printsOf(tb testing.TB, v *Volume, n *Snapshot) (list []Fingerprint) {
	tb.Helper()
	_, unit, err := v.FingerprintKey()
	must.Succeed(tb, err)
	for off := int64(0); off < n.Length(); off += int64(unit) {
		p := make([]byte, min(int64(unit), n.Length()-off))
		must.Succeed(tb, n.ReadAt(context.Background(), p, off))
		list = append(list, Fingerprint{Range{Offset: off, Length: int64(len(p))}, v.store.parts.fingerprints.Sum(p)})
	}
	return list
}

// TestVolume_MapAlike: data that is in another volume is mapped, and known by its names then; what
// is not there, is gone, has other checksums or is no whole block is missing.
func TestVolume_MapAlike(t *testing.T) {
	ctx := context.Background()
	a := newDisk().open(t, 16<<10)
	defer a.Close()
	d := newDisk()
	b := d.open(t, 8<<10)
	defer func() { b.Close() }()
	const size = 256 << 10
	src := createVolume(t, a, "src", size)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, size), 0))
	n := pin(t, src)
	must.Succeed(t, createVolume(t, b, "other", size).WriteAt(ctx, randomBytes(1, size), 0))
	must.Succeed(t, b.Checkpoint(ctx), b.Close()) // the index is what the checkpoint has
	b = d.open(t, 8<<10)
	to := createVolume(t, b, "to", size)
	runs := collectRuns(t, n, 0, size)
	prints := printsOf(t, to, n)
	if missing, err := to.MapAlike(ctx, a.ID(), prints, runs); err != nil || len(missing) != 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	equal(t, to, 0, n)
	if again := fetch(t, createVolume(t, b, "again", size), 0, n); again != 0 {
		t.Errorf("%d bytes are not known by their names", again)
	}

	wrong := slices.Clone(runs)
	wrong[0].CRC = slices.Clone(wrong[0].CRC)
	wrong[0].CRC[1]++
	missing, err := to.MapAlike(ctx, a.ID(), prints, wrong)
	if err != nil || len(missing) != 1 || missing[0] != (Range{Offset: 4096, Length: 4096}) {
		t.Errorf("with a wrong checksum of block 1 missing %v, %v", missing, err)
	}
	prints[2].Sum[0]++
	missing, err = to.MapAlike(ctx, a.ID(), prints, runs)
	if err != nil || !slices.Equal(missing, []Range{prints[2].Range}) {
		t.Errorf("with another fingerprint missing %v, %v", missing, err)
	}
	prints[2].Sum[0]--
	part := []Fingerprint{{Range{Offset: 0, Length: 100}, prints[0].Sum}, {Range{Offset: 100, Length: 4096}, prints[0].Sum}, {Range{Offset: 8192, Length: 16 << 10}, prints[1].Sum}}
	if missing, err = to.MapAlike(ctx, a.ID(), part, runs); err != nil || len(missing) != 2 {
		t.Errorf("of what are no extents missing %v, %v", missing, err)
	}

	for _, name := range []string{"other", "to", "again"} {
		must.Succeed(t, b.DeleteVolume(ctx, name))
	}
	reaped(t, b)
	to = createVolume(t, b, "last", size)
	missing, err = to.MapAlike(ctx, a.ID(), prints, runs)
	if err != nil || len(missing) != 1 || missing[0] != (Range{Length: size}) {
		t.Errorf("of what is gone missing %v, %v", missing, err)
	}
	to.StoreDuplicates(true)
	if _, err := to.MapAlike(ctx, a.ID(), prints, runs); !errors.Is(err, ErrNoFingerprints) {
		t.Errorf("without deduplication: %v", err)
	}
}
