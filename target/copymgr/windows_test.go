package copymgr

import (
	"bytes"
	"encoding/binary"
	"testing"

	"odx/blockdev"
	"odx/tokens"
)

func TestWindows_Replay(t *testing.T) {
	t.Run("device start", func(t *testing.T) {
		w := newWindows(t, tokens.Limits{})
		w.startDevice(lunA)
		w.startDevice(lunB)
		w.compare("device-start")
	})

	// A file of 640 KiB in three pieces: tokens of OPTIMAL TRANSFER COUNT each.
	t.Run("file copy", func(t *testing.T) {
		w := newWindows(t, tokens.Limits{TokenBytes: 256 << 10})
		w.startDevice(lunA)
		w.startDevice(lunB)
		data := w.fill(t, lunA, 1)
		want := w.fill(t, lunB, 2)
		w.transcript.Reset()
		at := uint64(16)
		for _, token := range [][]rangeOf{
			{{64, 400}, {1024, 112}},
			{{1136, 512}},
			{{1648, 8}, {512, 248}},
		} {
			taken, blocks := w.populateToken(lunA, token...)
			if taken == nil {
				t.Fatal("no token")
			}
			n := blocks * 512 / 4096
			if done, failure := w.writeToken(lunB, taken, 0, at, n); done != n {
				t.Fatalf("%d of %d blocks: %s", done, n, failure)
			}
			for _, r := range token {
				at += uint64(copy(want[at*4096:], data[r.lba*512:(r.lba+uint64(r.blocks))*512])) / 4096
			}
		}
		if !bytes.Equal(w.contents(t, lunB), want) {
			t.Error("wrong data")
		}
		w.compare("file-copy")
	})

	// Writes that end early are gone on with at INFORMATION, without a report.
	t.Run("short writes", func(t *testing.T) {
		w := newWindows(t, tokens.Limits{})
		w.hurry = true
		w.startDevice(lunA)
		w.startDevice(lunB)
		data := w.fill(t, lunA, 1)
		w.transcript.Reset()
		token, _ := w.populateToken(lunA, rangeOf{0, 800})
		w.store.MapAtMost(33 * 4096)
		if done, failure := w.writeToken(lunB, token, 0, 10, 100); done != 100 {
			t.Errorf("%d blocks: %s", done, failure)
		}
		if !bytes.Equal(w.contents(t, lunB)[10*4096:110*4096], data[:100*4096]) {
			t.Error("wrong data")
		}
		w.compare("short-writes")
	})

	// A new fixed VHDX is zeroed by the zero token; its header is written first.
	t.Run("fixed VHDX", func(t *testing.T) {
		w := newWindows(t, tokens.Limits{TokenBytes: 256 << 10})
		w.startDevice(lunA)
		want := w.fill(t, lunA, 1)
		w.transcript.Reset()
		zero := make([]byte, 512)
		binary.BigEndian.PutUint32(zero, 0xFFFF0001)
		binary.BigEndian.PutUint16(zero[6:], 0x01F8)
		if done, failure := w.writeToken(lunA, zero, 0, 128, 1200); done != 1200 {
			t.Errorf("%d blocks: %s", done, failure)
		}
		clear(want[128*512 : 1328*512])
		if !bytes.Equal(w.contents(t, lunA), want) {
			t.Error("wrong data")
		}
		w.compare("fixed-vhdx")
	})

	t.Run("refusals", func(t *testing.T) {
		w := newWindows(t, tokens.Limits{})
		w.startDevice(lunA)
		w.startDevice(lunB)
		token, _ := w.populateToken(lunA, rangeOf{0, 8})
		w.transcript.Reset()
		w.say("A range after the end: the cause is in the report.")
		if done, failure := w.writeToken(lunB, token, 0, unitBytes/4096, 1); done != 0 || failure != "5/21/00" {
			t.Errorf("%d blocks, %s", done, failure)
		}
		w.say("A token that was damaged: no report is asked for.")
		if done, failure := w.writeToken(lunB, with(token, func(p []byte) { p[300] ^= 1 }), 0, 0, 1); done != 0 || failure != "5/23/05" {
			t.Errorf("%d blocks, %s", done, failure)
		}
		w.say("A store without space.")
		w.failFrom(1, "Map", blockdev.ErrNoSpace)
		if done, failure := w.writeToken(lunB, token, 0, 0, 1); done != 0 || failure != "7/27/07" {
			t.Errorf("%d blocks, %s", done, failure)
		}
		w.compare("refusals")
	})

	t.Run("logical unit resets", func(t *testing.T) {
		w := newWindows(t, tokens.Limits{TokenBytes: 64 << 10})
		w.startDevice(lunA)
		w.startDevice(lunB)
		data := w.fill(t, lunA, 1)
		token, _ := w.populateToken(lunA, rangeOf{0, 128})
		w.transcript.Reset()
		w.say("LOGICAL UNIT RESET of both LUNs before the token is used: the command is sent again, and the token is still good.")
		for _, lun := range []int{lunA, lunB} {
			w.target.ResetLU(w.nexus, [8]byte{0, byte(lun)})
		}
		if done, failure := w.writeToken(lunB, token, 0, 0, 8); done != 8 {
			t.Errorf("after the reset: %s", failure)
		}
		w.say("The same before a token is asked for.")
		if again, _ := w.populateToken(lunA, rangeOf{0, 8}); again == nil {
			t.Error("no token after the reset")
		}
		w.say("A reset in the middle of a write: its status is ignored.")
		w.resetDuring(lunB, func() {
			w.send(ctx, w.nexus, lunB, copyOutCDB(0x11, w.nextListID(), 552), writeParameters(token, 0, rangeOf{16, 8}))
		})
		w.command("TEST UNIT READY", lunB, make([]byte, 6), nil)
		r := w.command("RECEIVE ROD TOKEN INFORMATION", lunB, copyInCDB(0x07, w.listID-1, w.limits[lunB].reportAllocation()), nil)
		if r.code() != "5/24/00" {
			t.Errorf("report of a write that the reset ended: %s", r.code())
		}
		w.say("Three minutes later the pair of LUNs is tried again.")
		w.clearAttentions(w.nexus, lunA)
		fresh, _ := w.populateToken(lunA, rangeOf{0, 64})
		if done, failure := w.writeToken(lunB, fresh, 0, 16, 8); done != 8 {
			t.Errorf("after both resets: %s", failure)
		}
		got := w.contents(t, lunB)
		if !bytes.Equal(got[:8*4096], data[:8*4096]) || !bytes.Equal(got[16*4096:24*4096], data[:8*4096]) {
			t.Error("wrong data")
		}
		w.compare("resets")
	})
}

// resetDuring resets a logical unit while write moves data to it.
func (w *windows) resetDuring(lun int, write func()) {
	s := w.stepMaps(4096)
	written := make(chan struct{})
	go func() {
		write()
		close(written)
	}()
	<-s.entered
	canceled := w.canceled(lun, w.listID-1)
	reset := make(chan struct{})
	go func() {
		w.target.ResetLU(w.nexus, [8]byte{0, byte(lun)})
		close(reset)
	}()
	<-canceled
	w.store.FailWith(nil)
	w.store.MapAtMost(0)
	s.proceed <- struct{}{}
	<-reset
	<-written
}
