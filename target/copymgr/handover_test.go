package copymgr

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"odx/internal/kit/must"
	"odx/target/handover"
	"odx/target/scsi"
	"odx/tokens"
)

// handOver suspends the nexus of b and continues it, with state as another process gets it.
// What cannot stop anywhere may continue until the context ends.
func (b *testbed) handOver(t *testing.T, ctx context.Context) {
	t.Helper()
	b.continueWith(t, b.suspend(t, ctx))
}

// suspend returns the state of the nexus of b as another process gets it.
func (b *testbed) suspend(t *testing.T, ctx context.Context) *handover.Nexus {
	t.Helper()
	state := b.target.Suspend(ctx, b.nexus)
	data, err := json.Marshal(state)
	must.Succeed(t, err)
	passed := new(handover.Nexus)
	must.Succeed(t, json.Unmarshal(data, passed))
	return passed
}

func (b *testbed) continueWith(t *testing.T, state *handover.Nexus) {
	t.Helper()
	b.nexus = b.target.Continue(b.nexus.ID, scsi.Rights{}, state)
	b.manager.GoOn()
}

// TestHandover_Reports: what initiators can retrieve of copies that have ended is the
// same afterwards.
func TestHandover_Reports(t *testing.T) {
	b := start(t, tokens.Limits{})
	b.fill(t, lunA, 1)
	// A token that is not retrieved, a copy that fails, held data, and a list identifier
	// whose report was replaced.
	for _, list := range []uint32{7, 7} {
		if a := b.populate(lunA, list, populateParameters(rangeOf{0, 16})); a.code() != "GOOD" {
			t.Fatal(a.code())
		}
	}
	if a := b.writeUsing(lunB, 8, writeParameters(make([]byte, 512), 0, rangeOf{0, 2})); a.code() == "GOOD" {
		t.Fatal("a token of zeros was accepted")
	}
	if a := b.extendedCopy(lunA, 0, lid1Parameters(3, 0, b.cscds(), segmentOf{kind: 0x0D, destination: 1, count: 8})); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	retrieve := func() (all [][]byte) {
		for _, a := range []answer{
			b.copyStatus(lunA, 7, 255), b.copyStatus(lunB, 8, 255), b.copyStatus(lunA, 3, 255), b.copyStatus(lunA, 9, 255),
			b.rodTokenInformation(lunA, 7, 100), b.rodTokenInformation(lunB, 8, 805), // the first does not deliver all
		} {
			all = append(all, append([]byte(a.code()), a.data...))
		}
		return all
	}
	before := retrieve()
	b.handOver(t, ctx)
	after := retrieve()
	for i := range before {
		if !bytes.Equal(before[i], after[i]) {
			t.Errorf("answer %d:\n% x\nwant\n% x", i, after[i], before[i])
		}
	}
	if p := b.copyIn(lunA, 0x01, 3, 1<<15).data; len(p) != 4+8*512 {
		t.Errorf("%d bytes are held, want 8 blocks", len(p)-4)
	}
	token := b.rodTokenInformation(lunA, 7, 1024).data
	if len(token) != 550 {
		t.Fatalf("report % x", token)
	}
	if a := b.writeUsing(lunB, 10, writeParameters(token[38:], 0, rangeOf{0, 2})); a.code() != "GOOD" {
		t.Errorf("the token: %s", a.code())
	}
}
