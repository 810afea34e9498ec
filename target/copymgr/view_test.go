package copymgr

import (
	"bytes"
	"testing"

	"odx/target/scsi"
	"odx/tokens"
)

// startNarrow starts a testbed for an initiator that sees LUN A, and may only read LUN B,
// whose contents it returns.
func startNarrow(t *testing.T) (b *testbed, contents []byte) {
	t.Helper()
	b = start(t, tokens.Limits{})
	b.fill(t, lunA, 1)
	contents = b.fill(t, lunB, 2)
	b.nexus = b.target.AttachWith(scsi.NexusID{InitiatorName: "iqn.2026-11.example:narrow", TargetName: b.target.Name()},
		scsi.Rights{View: scsi.View{lunA: {LUN: lunA}, lunB: {LUN: lunB, ReadOnly: true}}})
	b.clearAttentions(b.nexus, lunA)
	b.clearAttentions(b.nexus, lunB)
	return b, contents
}

// An initiator that may only read a LUN copies from it and not to it; from a LUN that
// it does not see it cannot copy at all.
func TestView_Tokens(t *testing.T) {
	b, before := startNarrow(t)

	token := b.token(t, lunB, rangeOf{0, 8})
	a := b.writeUsing(lunB, 3, writeParameters(token, 0, rangeOf{8, 8}))
	if a.code() != "7/27/00" {
		t.Errorf("WRITE USING TOKEN to what may only be read: %s", a.code())
	}
	b.wantRefusalOnRecord(t, lunB, 3, 0x11, a)
	if !bytes.Equal(b.contents(t, lunB), before) {
		t.Error("the volume has changed")
	}
	if a := b.writeUsing(lunA, 4, writeParameters(token, 0, rangeOf{0, 64})); a.code() != "GOOD" {
		t.Errorf("WRITE USING TOKEN to what may be written: %s", a.code())
	}
	if a := b.populate(lunRO, 5, populateParameters(rangeOf{0, 8})); a.code() != "5/25/00" {
		t.Errorf("POPULATE TOKEN on what is not seen: %s", a.code())
	}
}

// The same for EXTENDED COPY, whichever logical unit takes the command.
func TestView_ExtendedCopy(t *testing.T) {
	b, before := startNarrow(t)
	for _, c := range []struct {
		what    string
		segment segmentOf
		want    string
	}{
		{"from what may be read", segmentOf{kind: 2, source: lunB, destination: lunA, count: 8, destinationLBA: 64}, "GOOD"},
		{"to what may only be read", segmentOf{kind: 2, source: lunA, destination: lunB, count: 8}, "A/0D/01"},
		{"from what is not seen", segmentOf{kind: 2, source: lunRO, destination: lunA, count: 8}, "A/08/04"},
		{"to what is not seen", segmentOf{kind: 2, source: lunA, destination: lunOutside, count: 8}, "A/08/04"},
	} {
		if a := b.extendedCopy(lunA, 0, lid1Parameters(1, 0, b.cscds(), c.segment)); a.code() != c.want {
			t.Errorf("%s: %s, want %s", c.what, a.code(), c.want)
		}
	}
	if !bytes.Equal(b.contents(t, lunB), before) {
		t.Error("the volume that may only be read has changed")
	}
}
