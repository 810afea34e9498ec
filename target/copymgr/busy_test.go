package copymgr

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"odx/blockdev"
	"odx/target/scsi"
	"odx/tokens"
)

// fenced is a volume with an aborted write to all of it under way.
type fenced struct{ blockdev.Volume }

func (fenced) ReadAt(context.Context, []byte, int64) error {
	return fmt.Errorf("read: %w", blockdev.ErrBusy)
}
func (fenced) WriteAt(context.Context, []byte, int64) error {
	return fmt.Errorf("write: %w", blockdev.ErrBusy)
}
func (fenced) Unmap(context.Context, int64, int64) error {
	return fmt.Errorf("unmap: %w", blockdev.ErrBusy)
}
func (fenced) Flush(context.Context) error { return nil }

// Copies from and to blocks of an unfinished aborted write end with BUSY; EXTENDED COPY
// reports the logical unit.
func TestCopy_FencedBlocks(t *testing.T) {
	b := start(t, tokens.Limits{})
	b.fill(t, lunA, 1)
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: fenced{b.volumes[lunOutside]}, LogicalBlockLength: 512, ID: [16]byte{9}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.manager.Install(lu, "fenced"); err != nil {
		t.Fatal(err)
	}
	const lun = 9
	if err := b.target.AddLU(lun, lu); err != nil {
		t.Fatal(err)
	}
	b.clearAttentions(b.nexus, lunA)
	b.clearAttentions(b.nexus, lun)
	token := b.token(t, lunA, rangeOf{0, 8})
	if a := b.populate(lun, 1, populateParameters(rangeOf{0, 8})); a.code() != "status 08h" {
		t.Errorf("POPULATE TOKEN: %s, want BUSY", a.code())
	}
	if a := b.writeUsing(lun, 2, writeParameters(token, 0, rangeOf{0, 8})); a.code() != "status 08h" {
		t.Errorf("WRITE USING TOKEN: %s, want BUSY", a.code())
	}
	a := b.extendedCopy(lun, 0, lid1Parameters(1, 0, b.cscds(), segmentOf{kind: 2, source: lunA, destination: cscdThisLU, count: 8}))
	if a.code() != "A/0D/01" {
		t.Errorf("EXTENDED COPY: %s, want THIRD PARTY DEVICE FAILURE", a.code())
	}
}

// Token commands that get no memory to move bytes end with BUSY in their time; EXTENDED COPY,
// which has more time, waits.
func TestCopy_NoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, tokens.Limits{})
		b.fill(t, lunOutside, 1)
		token := b.token(t, lunA, rangeOf{0, 8})
		engine, began := b.tokens.Engine(), time.Now()
		engine.LimitMemory(2 << 20)
		err := engine.WithBuffer(t.Context(), func(context.Context, []byte) error {
			if a := b.populate(lunOutside, 1, populateParameters(rangeOf{0, 8})); a.code() != "status 08h" {
				t.Errorf("POPULATE TOKEN: %s, want BUSY", a.code())
			}
			if a := b.writeUsing(lunOutside, 2, writeParameters(token, 0, rangeOf{0, 8})); a.code() != "status 08h" {
				t.Errorf("WRITE USING TOKEN: %s, want BUSY", a.code())
			}
			if took := time.Since(began); took > 2*foregroundTime {
				t.Errorf("they took %v", took)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		go func() {
			err := engine.WithBuffer(t.Context(), func(context.Context, []byte) error { <-release; return nil })
			if err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		began = time.Now()
		time.AfterFunc(time.Minute, func() { close(release) })
		a := b.extendedCopy(lunA, 0, lid1Parameters(1, 0, b.cscds(), segmentOf{kind: 2, source: lunOutside, destination: cscdThisLU, count: 8}))
		if took := time.Since(began); a.code() != "GOOD" || took != time.Minute {
			t.Errorf("EXTENDED COPY: %s after %v", a.code(), took)
		}
	})
}
