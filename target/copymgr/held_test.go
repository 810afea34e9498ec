package copymgr

import (
	"bytes"
	"testing"

	"odx/blockdev"
	"odx/tokens"
)

// A segment holds the data that it processed, with or without the part that it could
// not write, and without data that an earlier one had processed.
func TestHeldData_Processed(t *testing.T) {
	const cat, dc = 1, 2
	for _, tc := range []struct {
		name     string
		segments []segmentOf
		want     [][2]int // ranges of the source, in blocks of 512 bytes
	}{
		{"residual data of the segment", []segmentOf{{kind: 0x0D, flags: cat, destination: 1, count: 12}}, [][2]int{{0, 12}}},
		{"residual data of an earlier segment", []segmentOf{
			{kind: 0x02, flags: cat, destination: 1, count: 12},
			{kind: 0x0D, flags: cat, destination: 1, count: 7, sourceLBA: 12, destinationLBA: 1}}, [][2]int{{12, 19}}},
		{"nothing but residual data", []segmentOf{
			{kind: 0x02, flags: cat, destination: 1, count: 5},
			{kind: 0x0D, flags: cat, destination: 1, count: 2, sourceLBA: 5}}, [][2]int{{5, 7}}},
		{"counted in the destination", []segmentOf{
			{kind: 0x02, flags: cat, destination: 1, count: 12},
			{kind: 0x0D, flags: dc, destination: 1, count: 1, sourceLBA: 12, destinationLBA: 1}}, [][2]int{{12, 16}}},
		{"of two segments", []segmentOf{
			{kind: 0x0D, flags: cat, destination: 1, count: 3},
			{kind: 0x02, flags: cat, destination: 1, count: 3, sourceLBA: 3},
			{kind: 0x0D, destination: 1, count: 2, sourceLBA: 6}}, [][2]int{{0, 3}, {6, 8}}},
	} {
		b := start(t, tokens.Limits{})
		data := b.fill(t, lunA, 1)
		if a := b.extendedCopy(lunA, 0, lid1Parameters(3, 0, b.cscds(), tc.segments...)); a.code() != "GOOD" {
			t.Errorf("%s: %s", tc.name, a.code())
			continue
		}
		var want []byte
		for _, r := range tc.want {
			want = append(want, data[r[0]*512:r[1]*512]...)
		}
		if p := b.copyIn(lunA, 0x01, 3, 1<<15).data; !bytes.Equal(p[4:], want) {
			t.Errorf("%s: %d bytes are held, want %d", tc.name, len(p)-4, len(want))
		}
	}
}

// Residual source data, which a segment that counts in the destination leaves, is
// processed by the next one before it reads.
func TestExtendedCopy_ResidualSource(t *testing.T) {
	const cat, dc = 1, 2
	b := start(t, tokens.Limits{})
	source := b.fill(t, lunB, 1)
	want := b.fill(t, lunA, 2)
	segments := []segmentOf{
		{kind: 2, flags: cat | dc, source: 1, count: 3, sourceLBA: 4},                    // leaves 5 of the 8 parts of block 4
		{kind: 2, flags: cat | dc, source: 1, count: 2, sourceLBA: 9, destinationLBA: 3}, // reads nothing
		{kind: 2, flags: dc, source: 1, count: 11, sourceLBA: 5, destinationLBA: 5},      // three parts, then a block
	}
	copy(want, source[4*4096:4*4096+16*512])
	if a := b.extendedCopy(lunA, 0, lid1Parameters(3, 0, b.cscds(), segments...)); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	if !bytes.Equal(b.contents(t, lunA), want) {
		t.Error("wrong data")
	}
}

// A segment that fails in the middle reports how many blocks of the destination are
// missing.
func TestExtendedCopy_FailedSegmentResidual(t *testing.T) {
	b := start(t, tokens.Limits{})
	b.fill(t, lunA, 1)
	b.store.MapAtMost(4096)
	for _, s := range []segmentOf{
		{kind: 2, destination: 1, count: 80},
		{kind: 0x0A, destination: 1, count: 80 * 512},
	} {
		b.failFrom(3, "Map", blockdev.ErrNoSpace)
		a := b.extendedCopy(lunA, 0, lid1Parameters(3, 0, b.cscds(), s))
		if blocks, ok := a.information(); a.code() != "A/0D/01" || !ok || blocks != 8 {
			t.Errorf("segment type %02Xh: %s, INFORMATION %d, %v; want 8 of 10 blocks", s.kind, a.code(), blocks, ok)
		}
	}
	b.failFrom(1, "Map", blockdev.ErrNoSpace)
	a := b.extendedCopy(lunA, 0, lid1Parameters(3, 0, b.cscds(), segmentOf{kind: 2, destination: 1, count: 80}))
	if blocks, ok := a.information(); a.code() != "A/0D/01" || ok {
		t.Errorf("nothing was written: %s, INFORMATION %d", a.code(), blocks)
	}
}
