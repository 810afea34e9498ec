package scsi

import (
	"context"
	"errors"
	"testing"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

func TestSynchronizeCache(t *testing.T) {
	f := newFixture(t)
	for i, cdb := range [][]byte{
		cdb10(0x35, 0, 0, 0), cdb10(0x35, 0, 5, 1), cdb16(0x91, 0, testBlocks-1, 1), cdb16(0x91, 0, 0, 0),
	} {
		f.good(cdb, nil)
		if got := f.vol.flushes.Load(); got != int64(i+1) {
			t.Errorf("% x: %d flushes, want %d", cdb, got, i+1)
		}
	}
	for _, cdb := range [][]byte{
		cdb10(0x35, synchronizeIMMED, testBlocks-1, 2), cdb10(0x35, 0, testBlocks, 0), cdb10(0x35, 0, testBlocks-1, 2), cdb16(0x91, 0, 1<<63, 0), cdb16(0x91, 0, 1<<64-1, 2),
	} {
		f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	}
}

// gatedVolume is a volume whose flushes say that they began, and end with what
// the test sends them, or with their context.
type gatedVolume struct {
	*memVolume
	began chan struct{}
	end   chan error
}

func newGatedFixture(t *testing.T) (*fixture, *gatedVolume) {
	v := &gatedVolume{memVolume: newMemVolume(testBlocks * 512), began: make(chan struct{}, 100), end: make(chan error)}
	return newFixture(t, func(c *LUConfig) { c.Volume = v }), v
}

func (v *gatedVolume) Flush(ctx context.Context) error {
	v.began <- struct{}{}
	select {
	case err := <-v.end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	synchronizeNow = cdb10(0x35, synchronizeIMMED, 0, 0)
)

// With IMMED the status precedes the end of the flush, and one more flush serves all
// requests that arrive during it.
func TestSynchronizeCache_IMMED(t *testing.T) {
	f, v := newGatedFixture(t)
	f.good(synchronizeNow, nil)
	<-v.began
	for range 10 {
		f.good(synchronizeNow, nil)
		f.good(cdb16(0x91, synchronizeIMMED, 0, 0), nil)
	}
	v.end <- nil
	<-v.began
	v.end <- nil
	if err := f.lu.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(v.began); n != 0 {
		t.Errorf("%d more flushes than two", n)
	}
}

// A flush that fails after its status was sent is reported by a deferred error, once,
// to the requesting nexuses only.
func TestSynchronizeCache_DeferredError(t *testing.T) {
	f, v := newGatedFixture(t)
	other, third := f.attach("iqn.2026-11.example.initiator:b"), f.attach("iqn.2026-11.example.initiator:c")
	f.good(synchronizeNow, nil)
	<-v.began
	f.on(other, synchronizeNow).wantStatus(t, StatusGood) // the next flush
	v.end <- errors.New("disk on fire")
	<-v.began
	r := f.do(cdb10(0x2A, 0, 0, 1), pattern(512, 1))
	wantHex(t, r.sense, "71 00 04 00000000 0a 00000000 4400 00 000000")
	if v.data[1] != 0 {
		t.Error("the command that reported the error was executed")
	}
	f.good(testUnitReady, nil)
	v.end <- blockdev.ErrNoSpace
	if err := f.lu.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.on(other, inquiryCDB(0, 0, 96)).wantStatus(t, StatusGood)
	wantHex(t, f.on(other, []byte{0x03, 0x01, 0, 0, 255, 0}).data, "73 07 2707 000000 00")
	f.on(other, testUnitReady).wantStatus(t, StatusGood)
	f.good(testUnitReady, nil)
	f.on(third, testUnitReady).wantStatus(t, StatusGood)
}

// Unit attentions come before a deferred error, which is not lost by them.
func TestUnitAttention_BeforeDeferredError(t *testing.T) {
	f := newFixture(t)
	f.vol.setError(blockdev.ErrNoSpace)
	f.good(synchronizeNow, nil)
	if err := f.lu.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.lu.establish(sense.ASCModeParametersChanged, nil)
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCModeParametersChanged)
	f.do(testUnitReady, nil).wantSense(t, sense.KeyDataProtect, sense.ASCSpaceAllocationFailed)
	f.good(testUnitReady, nil)
}

func TestLogicalUnit_Close(t *testing.T) {
	f, v := newGatedFixture(t)
	f.good(synchronizeNow, nil)
	<-v.began
	running := f.lu.background.running
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.lu.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	<-running
	f.do(synchronizeNow, nil).wantSense(t, sense.KeyAbortedCommand, sense.ASCNone)
	f.do(synchronizeNow, nil).wantSense(t, sense.KeyNotReady, sense.ASCLogicalUnitNotReady)
}
