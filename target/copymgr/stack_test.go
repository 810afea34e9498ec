package copymgr

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"odx/blockdev"
	"odx/offload"
	"odx/offload/view"
	"odx/target/scsi"
	"odx/tokens"
)

const (
	lunStripe  = 4 // 512 bytes a block; a stripe over two volumes of the store
	stripeUnit = 64 << 10
)

// shortView is a view that shows at most limit bytes in one piece.
type shortView struct {
	*view.Stack
	limit int64
}

// Pieces implements offload.View.
func (v shortView) Pieces(ctx context.Context, ranges []blockdev.Range, take func([]offload.Piece) error) error {
	ranges[0].Length = min(ranges[0].Length, v.limit)
	return v.Stack.Pieces(ctx, ranges[:1], take)
}

// startWithStripe is start with a stripe, which shows at most limit bytes in one
// piece.
func startWithStripe(t *testing.T, l tokens.Limits, limit int64) *testbed {
	t.Helper()
	b := start(t, l)
	d, err := view.NewStripe([]view.Device{
		view.Base(b.tokens.Engine(), b.store.NewVolume("s0", unitBytes)), view.Base(b.tokens.Engine(), b.store.NewVolume("s1", unitBytes)),
	}, stripeUnit)
	if err != nil {
		t.Fatal(err)
	}
	s := shortView{view.NewStack(d, view.NewGate()), limit}
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: s, ID: [16]byte{lunStripe + 1}, LogicalBlockLength: 512, Thin: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.manager.Install(lu, "stripe"); err != nil {
		t.Fatal(err)
	}
	if err := b.target.AddLU(lunStripe, lu); err != nil {
		t.Fatal(err)
	}
	b.volumes = append(b.volumes, s)
	b.nexus = b.attach("iqn.2026-11.example:other")
	return b
}

// If a view cannot show all of a range, the token represents the first blocks of it,
// and the initiator gets their number.
func TestPopulateToken_ViewLength(t *testing.T) {
	b := startWithStripe(t, tokens.Limits{}, 3*stripeUnit)
	data := b.fill(t, lunStripe, 1)
	if a := b.populate(lunStripe, 5, populateParameters(rangeOf{8, 1024}, rangeOf{0, 8})); a.code() != "GOOD" {
		t.Fatalf("POPULATE TOKEN: %s", a.code())
	}
	a := b.rodTokenInformation(lunStripe, 5, 1024)
	const blocks = 3 * stripeUnit / 512
	if got := binary.BigEndian.Uint64(a.data[16:]); len(a.data) != 550 || a.data[5] != copyDoneWithResidual || got != blocks {
		t.Fatalf("status %02Xh, %d blocks; want 04h and %d", a.data[5], got, blocks)
	}
	if a := b.writeUsing(lunA, 6, writeParameters(a.data[38:], 0, rangeOf{16, blocks})); a.code() != "GOOD" {
		t.Fatalf("WRITE USING TOKEN: %s", a.code())
	}
	if !bytes.Equal(b.contents(t, lunA)[16*512:][:3*stripeUnit], data[8*512:][:3*stripeUnit]) {
		t.Error("wrong data")
	}
}

// A write to a stripe that reaches the time limit ends at a striping unit, and the
// initiator gets the count; it continues from there.
func TestWriteUsingToken_StripingUnits(t *testing.T) {
	b := startWithStripe(t, tokens.Limits{}, 1<<40)
	b.hurry = true
	data := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, unitBytes / 512})
	const skip = 16 // blocks into the first unit
	a := b.writeUsing(lunStripe, 5, writeParameters(token, 0, rangeOf{skip, 1024}))
	b.wantUnderrun(t, lunStripe, 5, a, stripeUnit/512-skip)
	if log := b.log.String(); !strings.Contains(log, "copy command ended early") || strings.Contains(log, "error=") {
		t.Errorf("no error, and the log has %q", log)
	}
	for done := uint64(stripeUnit/512 - skip); done < 1024; {
		a := b.writeUsing(lunStripe, 6, writeParameters(token, done, rangeOf{skip + done, uint32(1024 - done)}))
		n, _ := a.information()
		if a.code() == "GOOD" {
			n = uint32(1024 - done)
		}
		if n == 0 || (a.code() != "GOOD" && a.code() != "A/0D/04") {
			t.Fatalf("after %d blocks: %s", done, a.code())
		}
		done += uint64(n)
	}
	if !bytes.Equal(b.contents(t, lunStripe)[skip*512:][:1024*512], data[:1024*512]) {
		t.Error("wrong data")
	}
}

// EXTENDED COPY maps from and to a view, by blocks and by bytes, within it too.
func TestExtendedCopy_Stripe(t *testing.T) {
	b := startWithStripe(t, tokens.Limits{}, 1<<40)
	want := b.fill(t, lunStripe, 1)
	a := b.fill(t, lunA, 2)
	writes := 0
	b.store.FailWith(func(op string) error {
		if op == "WriteAt" {
			writes++
		}
		return nil
	})
	for _, c := range []struct {
		segment segmentOf
		source  []byte
		from    int
		to, n   int
	}{
		{segmentOf{kind: 2, source: lunA, destination: lunStripe, count: 512, sourceLBA: 16, destinationLBA: 40}, a, 16 * 512, 40 * 512, 512 * 512},
		{segmentOf{kind: 2, source: lunStripe, destination: lunStripe, count: 1000, sourceLBA: 0, destinationLBA: 300}, want, 0, 300 * 512, 1000 * 512},
		{segmentOf{kind: 0x0A, source: lunStripe, destination: lunStripe, count: 200001, sourceLBA: 9, sourceOffset: 7, destinationLBA: 1200, destinationOffset: 100},
			want, 9*512 + 7, 1200*512 + 100, 200001},
	} {
		if got := b.extendedCopy(lunStripe, 0, lid1Parameters(1, 0, b.cscds(), c.segment)); got.code() != "GOOD" {
			t.Fatalf("EXTENDED COPY %+v: %s", c.segment, got.code())
		}
		copy(want[c.to:], bytes.Clone(c.source[c.from:c.from+c.n]))
		if !bytes.Equal(b.contents(t, lunStripe), want) {
			t.Fatalf("after %+v: wrong data", c.segment)
		}
	}
	if writes != 0 {
		t.Errorf("%d writes; all of it can be mapped", writes)
	}
}
