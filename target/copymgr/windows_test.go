package copymgr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/backstore"
	"odx/tokens"
)

// windows sends what the class driver and the copy engine of Windows send, and
// insists on what they insist on. What goes over the wire is written down; the
// transcripts in testdata/windows-*.txt are for people to read.
type windows struct {
	*testbed
	t          *testing.T
	transcript strings.Builder
	// listID is one counter for the whole host, which begins at 0.
	listID uint32
	limits map[int]offloadLimits
}

// offloadLimits are what the class driver keeps of VPD page 8Fh.
type offloadLimits struct {
	maxRanges       uint16
	maxBlocks       uint64
	optimalBlocks   uint64
	blockLength     uint64
	maxTokenSeconds uint32
}

// Allocation lengths of RECEIVE ROD TOKEN INFORMATION, after POPULATE TOKEN and
// after WRITE USING TOKEN.
const (
	windowsTokenAllocation = 805
	windowsWriteAllocation = 287
)

func newWindows(t *testing.T, l tokens.Limits) *windows {
	return &windows{testbed: start(t, l), t: t, limits: map[int]offloadLimits{}}
}

// command sends a command and writes it down.
func (w *windows) command(name string, lun int, cdb, out []byte) answer {
	a := w.send(ctx, w.nexus, lun, cdb, out)
	fmt.Fprintf(&w.transcript, "LUN %d  %s\n  CDB   % x\n", lun, name, cdb)
	w.dump("out", out, tokenIn(cdb, out))
	fmt.Fprintf(&w.transcript, "  %s", a.code())
	if information, ok := a.information(); ok {
		fmt.Fprintf(&w.transcript, ", INFORMATION %d", information)
	}
	w.transcript.WriteByte('\n')
	if cdb[0] == 0x84 || cdb[0] == 0x12 && cdb[2] == 0x8F {
		// What others answer, their own tests hold down.
		w.dump("in", a.data, tokenIn(cdb, a.data))
	}
	return a
}

// tokenIn returns where a token lies in the data of a command, -1 if there is
// none.
func tokenIn(cdb, p []byte) int {
	switch {
	case cdb[0] == 0x83 && cdb[1] == 0x11 && len(p) >= 528:
		return 16
	case cdb[0] == 0x84 && cdb[1] == 0x07 && len(p) >= 550:
		return len(p) - 512
	}
	return -1
}

// dump writes data down; of a token only what does not change.
func (w *windows) dump(what string, p []byte, token int) {
	if token >= 0 {
		t := p[token:]
		w.lines(what, p[:token], 0)
		fmt.Fprintf(&w.transcript, "  %-4s  %03d  ROD token: type %x, length %x, %d bytes\n",
			what, token, t[:4], t[6:8], binary.BigEndian.Uint64(t[56:]))
		w.lines(what, p[token+512:], token+512)
		return
	}
	w.lines(what, p, 0)
}

func (w *windows) lines(what string, p []byte, from int) {
	zero := make([]byte, 16)
	skipped := false
	for off := 0; off < len(p); off += 16 {
		line := p[off:min(off+16, len(p))]
		if off > 0 && off+16 < len(p) && bytes.Equal(line, zero) {
			if !skipped {
				fmt.Fprintf(&w.transcript, "  %-4s  *\n", what)
			}
			skipped = true
			continue
		}
		skipped = false
		fmt.Fprintf(&w.transcript, "  %-4s  %03d  % x\n", what, from+off, line)
	}
}

// say writes a line of prose between the commands.
func (w *windows) say(format string, args ...any) {
	fmt.Fprintf(&w.transcript, "# "+format+"\n", args...)
}

// compare holds the transcript against the golden file.
func (w *windows) compare(name string) {
	w.t.Helper()
	path := "testdata/windows-" + name + ".txt"
	if *rewrite {
		if err := os.WriteFile(path, []byte(w.transcript.String()), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.transcript.String() != string(want) {
		w.t.Errorf("%s differs; it is now\n%s", path, w.transcript.String())
	}
}

// startDevice is what the class driver does when it finds a disk.
func (w *windows) startDevice(lun int) {
	w.t.Helper()
	inquiry := func(page byte) []byte {
		return w.command(fmt.Sprintf("INQUIRY page %02Xh", page), lun, []byte{0x12, 0x01, page, 0, 255, 0}, nil).data
	}
	pages := inquiry(0x00)[4:]
	if pages[0] != 0 || !slices.IsSorted(pages) || !slices.Contains(pages, 0x8F) || !slices.Contains(pages, 0xB0) {
		w.t.Errorf("pages % x", pages)
	}
	inquiry(0xB0)
	p, be := inquiry(0x8F), binary.BigEndian
	if len(p) != 255 || be.Uint16(p[2:]) < 36 || be.Uint16(p[4:]) != 0 || be.Uint16(p[6:]) != 0x20 {
		w.t.Fatalf("page 8Fh of %d bytes, % x", len(p), p[:8])
	}
	capacity := w.command("READ CAPACITY(16)", lun, []byte{0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0}, nil).data
	l := offloadLimits{
		maxRanges: be.Uint16(p[14:]), maxTokenSeconds: be.Uint32(p[16:]),
		maxBlocks: be.Uint64(p[24:]), optimalBlocks: be.Uint64(p[32:]), blockLength: uint64(be.Uint32(capacity[8:])),
	}
	if l.optimalBlocks > l.maxBlocks {
		w.t.Errorf("OPTIMAL TRANSFER COUNT %d, MAXIMUM TOKEN TRANSFER SIZE %d", l.optimalBlocks, l.maxBlocks)
	}
	w.limits[lun] = l
	control := w.command("MODE SENSE(6) control page", lun, []byte{0x1A, 0x08, 0x0A, 0, 255, 0}, nil).data
	if qerr := control[4+3] >> 1 & 3; qerr != 0 {
		w.t.Errorf("QERR %d", qerr)
	}
}

// populateToken is an offload read. It returns the token and how many blocks of
// the source it stands for; nil when the request failed.
func (w *windows) populateToken(lun int, ranges ...rangeOf) (token []byte, blocks uint64) {
	w.t.Helper()
	var asked uint64
	for _, r := range ranges {
		asked += uint64(r.blocks)
	}
	id := w.nextListID()
	if a := w.command("POPULATE TOKEN", lun, copyOutCDB(0x10, id, uint32(16+16*len(ranges))), populateParameters(ranges...)); a.code() != "GOOD" {
		return nil, 0
	}
	p := w.command("RECEIVE ROD TOKEN INFORMATION", lun, copyInCDB(0x07, id, windowsTokenAllocation), nil).data
	be := binary.BigEndian
	o := 32 + int(p[13])
	count := be.Uint64(p[16:])
	if p[4] != 0x10 || !slices.Contains([]byte{0x01, 0x04}, p[5]) || p[15] != 0xF1 || be.Uint16(p[24:]) != 0 || count > asked ||
		(p[5] == 0x01) != (count == asked) || be.Uint32(p[o:]) != 0x0202 || be.Uint16(p[o+4:]) != 0 {
		w.t.Fatalf("report % x", p[:o+6])
	}
	return p[o+6 : o+6+512], count
}

func (w *windows) nextListID() uint32 {
	w.listID++
	return w.listID - 1
}

// writeToken is an offload write of blocks of the destination, from offset on in
// the token. It returns how many were written before a request failed.
func (w *windows) writeToken(lun int, token []byte, offset, lba, blocks uint64) (done uint64, failure string) {
	w.t.Helper()
	l := w.limits[lun]
	step := min(l.optimalBlocks, 256<<20/l.blockLength, l.maxBlocks)
	for done < blocks {
		n := min(blocks-done, step)
		id := w.nextListID()
		parameters := writeParameters(token, offset+done, rangeOf{lba + done, uint32(n)})
		a := w.command("WRITE USING TOKEN", lun, copyOutCDB(0x11, id, uint32(len(parameters))), parameters)
		if a.code() == "GOOD" {
			done += n // all of it is written, and nobody asks
			continue
		}
		count, ok := a.information()
		switch {
		case strings.HasSuffix(a.code(), "/0D/04") && ok && count > 0:
			done += uint64(count)
			continue
		case strings.HasPrefix(a.code(), "5/23/"), strings.HasPrefix(a.code(), "6/"):
			return done, a.code()
		}
		r := w.command("RECEIVE ROD TOKEN INFORMATION", lun, copyInCDB(0x07, id, windowsWriteAllocation), nil)
		if r.code() != "GOOD" || !slices.Contains([]byte{0x01, 0x02, 0x04, 0x60}, r.data[5]) {
			return done, "no report: " + r.code()
		}
		return done, a.code()
	}
	return done, ""
}

func TestWindowsReplay(t *testing.T) {
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
		w := newWindows(t, tokens.Limits{CallTime: time.Nanosecond})
		w.startDevice(lunA)
		w.startDevice(lunB)
		data := w.fill(t, lunA, 1)
		w.transcript.Reset()
		token, _ := w.populateToken(lunA, rangeOf{0, 800})
		w.store.MapLength = 33 * 4096
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
		w.say("A range behind the end: the cause is in the report.")
		if done, failure := w.writeToken(lunB, token, 0, unitBytes/4096, 1); done != 0 || failure != "5/21/00" {
			t.Errorf("%d blocks, %s", done, failure)
		}
		w.say("A token that was damaged: no report is asked for.")
		if done, failure := w.writeToken(lunB, with(token, func(p []byte) { p[300] ^= 1 }), 0, 0, 1); done != 0 || failure != "5/23/05" {
			t.Errorf("%d blocks, %s", done, failure)
		}
		w.say("A store without space.")
		w.failFrom(1, "Map", backstore.ErrNoSpace)
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
		w.say("LOGICAL UNIT RESET of both LUNs before the token is used.")
		for _, lun := range []int{lunA, lunB} {
			w.target.ResetLU(w.nexus, [8]byte{0, byte(lun)})
		}
		if _, failure := w.writeToken(lunB, token, 0, 0, 8); failure != "6/29/03" {
			t.Errorf("the first command after a reset: %s", failure)
		}
		w.say("The token is still good.")
		if done, failure := w.writeToken(lunB, token, 0, 0, 8); done != 8 {
			t.Errorf("after the reset: %s", failure)
		}
		w.say("A reset in the middle of a write: what it says is not looked at.")
		w.resetDuring(lunB, func() {
			w.send(ctx, w.nexus, lunB, copyOutCDB(0x11, w.nextListID(), 552), writeParameters(token, 0, rangeOf{16, 8}))
		})
		w.command("TEST UNIT READY", lunB, make([]byte, 6), nil)
		r := w.command("RECEIVE ROD TOKEN INFORMATION", lunB, copyInCDB(0x07, w.listID-1, windowsWriteAllocation), nil)
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
	s.proceed <- struct{}{}
	<-reset
	<-written
	w.store.Fail, w.store.MapLength = nil, 0
}
