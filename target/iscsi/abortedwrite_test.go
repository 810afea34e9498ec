package iscsi

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	odxgotgt "odx/target/gotgt"
)

// frozenFile is a file on a file system that can be frozen: writes then hang in the
// kernel, reads do not.
type frozenFile struct {
	api.BackingStore
	entered chan struct{} // receives from each write that hangs

	mu   sync.Mutex // guards the fields below
	data []byte
	thaw chan struct{} // nil: not frozen
}

func (*frozenFile) Open(*api.SCSILu, string) error { return nil }
func (f *frozenFile) Size(*api.SCSILu) uint64      { return uint64(len(f.data)) }
func (*frozenFile) Close(*api.SCSILu) error        { return nil }

func (f *frozenFile) Read(off, n int64) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Clone(f.data[off : off+n]), nil
}

func (f *frozenFile) Write(p []byte, off int64) error {
	f.mu.Lock()
	thaw := f.thaw
	f.mu.Unlock()
	if thaw != nil {
		f.entered <- struct{}{}
		<-thaw
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.data[off:], p)
	return nil
}

// freeze makes writes hang until thaw is called.
func (f *frozenFile) freeze() (thaw func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.thaw = make(chan struct{})
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		close(f.thaw)
		f.thaw = nil
	}
}

// However a command is ended whose write hangs in the kernel, the response is in time, the
// blocks are busy until the write has returned, and later acknowledged data is not
// overwritten.
func TestSession_AbortedWrites(t *testing.T) {
	reserveOut := func(i *initiator, action byte, key, actionKey uint64) {
		list := binary.BigEndian.AppendUint64(nil, key)
		list = append(binary.BigEndian.AppendUint64(list, actionKey), make([]byte, 8)...)
		h := i.command(bitWrite, 24, 0x5F, action, 5, 0, 0, 0, 0, 0, 24, 0)
		i.send(h, nil, list)
		i.good(h)
	}
	tmfOf := func(function byte) func(*bench, *initiator, *initiator, *bhs) {
		return func(_ *bench, a, _ *initiator, hung *bhs) {
			if got := a.tmfResponse(a.tmf(function, [8]byte{}, hung)); got != tmfComplete {
				a.tb.Errorf("response %d", got)
			}
		}
	}
	for name, end := range map[string]func(b *bench, a, other *initiator, hung *bhs){
		"ABORT TASK":         tmfOf(tmfAbortTask),
		"ABORT TASK SET":     tmfOf(tmfAbortTaskSet),
		"CLEAR TASK SET":     tmfOf(tmfClearTaskSet),
		"LOGICAL UNIT RESET": tmfOf(tmfLogicalUnitReset),
		"TARGET WARM RESET":  tmfOf(tmfTargetWarmReset),
		"reset by another": func(b *bench, _, other *initiator, _ *bhs) {
			tmfOf(tmfLogicalUnitReset)(b, other, nil, nil)
		},
		"PREEMPT AND ABORT": func(_ *bench, _, other *initiator, _ *bhs) { reserveOut(other, 5, 2, 1) },
		"logout":            func(_ *bench, a, _ *initiator, _ *bhs) { a.logout() },
		"reconnect":         func(b *bench, a, _ *initiator, _ *bhs) { a.nc.Close(); b.login() },
		"reinstatement":     func(b *bench, _, _ *initiator, _ *bhs) { b.login() },
	} {
		t.Run(name, func(t *testing.T) {
			f := &frozenFile{data: make([]byte, 1<<20), entered: make(chan struct{}, 8)}
			store := "frozen " + name
			gotgt.RegisterBackingStore(store, func() (api.BackingStore, error) { return f, nil })
			volume, err := odxgotgt.Open(store + ":x")
			if err != nil {
				t.Fatal(err)
			}
			t.Parallel() // after registration in gotgt, which is not concurrent
			b := newVolumeBench(t, volume, func(o *Options) { o.AbortTimeout = 20 * time.Millisecond })
			a, other := b.login(), b.loginAs(testInitiator+".other")
			for _, i := range []*initiator{a, other} {
				i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0))) // power on
			}
			if name == "PREEMPT AND ABORT" {
				reserveOut(a, 0, 0, 1)
				reserveOut(other, 0, 0, 2)
				reserveOut(a, 1, 1, 0)
			}
			thaw := f.freeze()
			old, newer := bytes.Repeat([]byte("old!"), memBlock/4), bytes.Repeat([]byte("new!"), memBlock/4)
			var hung *bhs
			for range map[bool]int{true: 1, false: 3}[name == "ABORT TASK"] {
				hung = a.command(bitWrite, memBlock, write10(7, 1)...)
				a.send(hung, nil, old)
				<-f.entered
			}
			end(b, a, other, hung)

			eventually(t, "the unit attention of the other has been reported", func() bool {
				r, _ := other.status(sendCommand(other, other.command(0, 0, 0, 0, 0, 0, 0, 0)))
				return r[3] == statusGood
			})
			statusOf := func(h *bhs, data []byte) byte {
				other.send(h, nil, data)
				r, _ := other.status(h)
				return r[3]
			}
			eventually(t, "the blocks are busy", func() bool {
				return statusOf(other.command(bitRead, memBlock, read10(7, 1)...), nil) == statusBusy
			})
			if got := statusOf(other.command(bitWrite, memBlock, write10(7, 1)...), newer); got != statusBusy {
				t.Errorf("a write to the blocks: status %02Xh, want BUSY", got)
			}
			if got := statusOf(other.command(bitRead, memBlock, read10(8, 1)...), nil); got != statusGood {
				t.Errorf("a read of other blocks: status %02Xh", got)
			}
			thaw()
			eventually(t, "the blocks can be written", func() bool {
				return statusOf(other.command(bitWrite, memBlock, write10(7, 1)...), newer) == statusGood
			})
			mustEqual(t, "what was written last", other.readBlocks(7, 1), newer)
		})
	}
}
