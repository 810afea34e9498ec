package copymgr

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/target/handover"
	"odx/target/scsi"
	"odx/tokens"
)

// handOver suspends the nexus of b and continues it, with state as another process gets it.
// Commands in the background may continue until the context ends.
func (b *testbed) handOver(t *testing.T, ctx context.Context) {
	t.Helper()
	state := b.target.Suspend(ctx, b.nexus)
	data, err := json.Marshal(state)
	must.Succeed(t, err)
	var passed handover.Nexus
	must.Succeed(t, json.Unmarshal(data, &passed))
	b.nexus = b.target.Continue(b.nexus.ID, scsi.Rights{}, &passed)
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

// TestHandover_Background: a copy in the background ends before the handover, or is
// aborted when its time is over, with what it has done in its report.
func TestHandover_Background(t *testing.T) {
	const block, blocks = 4096, 64
	for name, tc := range map[string]struct {
		ends   bool
		status byte
	}{
		"ends":    {true, 0x01},
		"aborted": {false, 0x60},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, tokens.Limits{}).hurried()
			b.fill(t, lunA, 1)
			token := b.token(t, lunA, rangeOf{0, blocks * block / 512})
			s := b.stepMaps(block)
			if a := b.writeUsing(lunB, 9, immediate(writeParameters(token, 0, rangeOf{0, blocks}))); a.code() != "GOOD" {
				t.Fatal(a.code())
			}
			for range 3 {
				s.step()
			}
			<-s.entered
			limit, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.handOver(t, limit)
			}()
			if !tc.ends {
				cancel()
				b.awaitAbort(9)
			}
			b.store.FailWith(nil)
			s.proceed <- struct{}{}
			<-done
			p := b.rodTokenInformation(lunB, 9, 805).data
			count := binary.BigEndian.Uint64(p[16:])
			if p[5] != tc.status || tc.ends != (count == blocks) || count == 0 {
				t.Errorf("report % x: %d blocks", p, count)
			}
		})
	}
}

// awaitAbort waits until the running operation of a list identifier is being aborted.
func (b *testbed) awaitAbort(listID uint32) {
	o := b.manager.operations
	o.mu.Lock()
	var ended <-chan struct{}
	for op := range o.running {
		if op.listID == listID {
			ended = op.ctx.Done()
		}
	}
	o.mu.Unlock()
	<-ended
}
