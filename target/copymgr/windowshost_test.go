package copymgr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

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

// reportAllocation is the allocation length of RECEIVE ROD TOKEN INFORMATION after
// WRITE USING TOKEN: the whole buffer of the write, which has room for as many
// ranges as the target takes.
func (l offloadLimits) reportAllocation() uint32 {
	return min(max(536+16*uint32(l.maxRanges), maxWriteReport), 65535)
}

// windowsTokenAllocation is the allocation length of RECEIVE ROD TOKEN INFORMATION
// after POPULATE TOKEN. After WRITE USING TOKEN it is the buffer of that command: see
// offloadLimits.reportAllocation.
const windowsTokenAllocation = 805

// Maximum number of times the class driver sends a command.
const (
	populateTries = 2
	writeTries    = 3
)

// The most that AVAILABLE DATA may say: a checked build of Windows asserts it.
const (
	maxTokenReport = 803
	maxWriteReport = 287
)

func newWindows(t *testing.T, l tokens.Limits) *windows {
	w := &windows{testbed: start(t, l), t: t, limits: map[int]offloadLimits{}}
	w.nexus = w.attach("iqn.1991-05.com.microsoft:host.example")
	return w
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
		// Other answers have their own tests.
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

// say writes a comment between the commands.
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

// tried sends a command as often as the class driver does, with the same list and
// the same list identifier, while the answer is one that it sends it again for.
func (w *windows) tried(tries int, name string, lun int, cdb, out []byte) (a answer) {
	for range tries {
		a = w.command(name, lun, cdb, out)
		code := a.code()
		switch {
		case strings.HasPrefix(code, "6/38/") && code != "6/38/07":
			return a
		case strings.HasPrefix(code, "6/"), code == "status 08h":
		case (strings.HasPrefix(code, "A/") || strings.HasPrefix(code, "B/")) && !strings.HasSuffix(code, "/0D/04") && code != "B/55/03":
		default:
			return a
		}
	}
	return a
}

// startDevice is what the class driver does when it finds a disk, in its order.
func (w *windows) startDevice(lun int) {
	w.t.Helper()
	be := binary.BigEndian
	inquiry := func(page, allocation byte) []byte {
		return w.command(fmt.Sprintf("INQUIRY page %02Xh", page), lun, []byte{0x12, 0x01, page, 0, allocation, 0}, nil).data
	}
	w.command("READ CAPACITY(10)", lun, []byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil)
	readCapacity16 := []byte{0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0}
	capacity := w.command("READ CAPACITY(16)", lun, readCapacity16, nil).data
	if len(capacity) != 32 {
		w.t.Fatalf("READ CAPACITY(16) of %d bytes", len(capacity))
	}
	all := inquiry(0x00, 255)
	pages := all[4:]
	if int(all[3]) != len(pages) || pages[0] != 0 || !slices.IsSorted(pages) || len(slices.Compact(slices.Clone(pages))) != len(pages) {
		w.t.Fatalf("pages % x", all)
	}
	for _, page := range []byte{0xB0, 0xB1, 0xB2, 0x8F} {
		if !slices.Contains(pages, page) {
			w.t.Errorf("page %02Xh is not listed", page)
		}
	}
	provisioning := inquiry(0xB2, 255)
	if len(provisioning) < 8 || provisioning[3] < 3 || provisioning[1] != 0xB2 {
		w.t.Fatalf("page B2h % x", provisioning)
	}
	thin := provisioning[6]&7 == 2 && provisioning[5]&0x80 != 0
	limits := inquiry(0xB0, 255)
	if len(limits) < 0x24 || be.Uint16(limits[2:]) < 0x20 {
		w.t.Fatalf("page B0h % x", limits)
	}
	w.offload(lun, inquiry(0x8F, 255), uint64(be.Uint32(capacity[8:])))
	modeSense := func(page byte) []byte {
		return w.command(fmt.Sprintf("MODE SENSE(6) page %02Xh", page), lun, []byte{0x1A, 0, page, 0, 192, 0}, nil).data
	}
	control := modeSense(0x0A) // DBD is 0: a block descriptor comes first
	if qerr := control[4+int(control[3])+3] >> 1 & 3; control[3] != 8 || qerr != 0 {
		w.t.Errorf("block descriptors of %d bytes, QERR %d", control[3], qerr)
	}
	if b1 := inquiry(0xB1, 64); len(b1) < 8 || b1[3] != 0x3C {
		w.t.Errorf("page B1h % x", b1)
	}
	modeSense(0x08)
	modeSense(0x3F)
	w.command("READ CAPACITY(16)", lun, readCapacity16, nil)
	if thin {
		w.startThin(lun, be.Uint32(limits[28:]))
	}
}

// offload reads VPD page 8Fh, of which only the first descriptor counts.
func (w *windows) offload(lun int, p []byte, blockLength uint64) {
	w.t.Helper()
	be := binary.BigEndian
	if len(p) != 255 || be.Uint16(p[2:]) < 36 || be.Uint16(p[4:]) != 0 || be.Uint16(p[6:]) != 0x20 {
		w.t.Fatalf("page 8Fh of %d bytes, % x", len(p), p[:8])
	}
	l := offloadLimits{
		maxRanges: be.Uint16(p[14:]), maxTokenSeconds: be.Uint32(p[16:]),
		maxBlocks: be.Uint64(p[24:]), optimalBlocks: be.Uint64(p[32:]), blockLength: blockLength,
	}
	if l.optimalBlocks > l.maxBlocks || l.maxBlocks >= 1<<32 {
		w.t.Errorf("OPTIMAL TRANSFER COUNT %d, MAXIMUM TOKEN TRANSFER SIZE %d", l.optimalBlocks, l.maxBlocks)
	}
	w.limits[lun] = l
}

// startThin is what follows for a thin disk: the resources that are left, and which
// slabs are mapped. A slab is OPTIMAL UNMAP GRANULARITY, which the driver divides by
// without a look.
func (w *windows) startThin(lun int, slab uint32) {
	w.t.Helper()
	be := binary.BigEndian
	if slab == 0 {
		w.t.Fatal("OPTIMAL UNMAP GRANULARITY 0: the host has crashed")
	}
	p := w.command("LOG SENSE page 0Ch", lun, []byte{0x4D, 0, 0x0C, 0, 0, 0, 0, 0, 28, 0}, nil).data
	if len(p) != 28 || be.Uint16(p[4:]) != 1 || be.Uint16(p[16:]) != 2 {
		w.t.Errorf("log page 0Ch % x", p)
	}
	status := w.command("GET LBA STATUS", lun, []byte{0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8 + 16*4, 0, 0}, nil).data
	next := uint64(0)
	for d := status[8:]; len(d) > 0; d = d[16:] {
		if be.Uint64(d) != next || be.Uint32(d[8:])%slab != 0 {
			w.t.Errorf("LBA status descriptor % x: want whole slabs of %d from %d on", d[:16], slab, next)
		}
		next += uint64(be.Uint32(d[8:]))
	}
}

// report asks for the report of an operation, and fails the request unless it is
// over: the class driver never polls.
func (w *windows) report(tries int, lun int, id, allocation, most uint32, action byte) (p []byte, ok bool) {
	w.t.Helper()
	a := w.tried(tries, "RECEIVE ROD TOKEN INFORMATION", lun, copyInCDB(0x07, id, allocation), nil)
	if a.code() != "GOOD" {
		return nil, false
	}
	be := binary.BigEndian
	if p = a.data; !slices.Contains([]byte{0x01, 0x02, 0x04, 0x60}, p[5]) {
		return nil, false
	}
	if p[4] != action || p[15] != 0xF1 || be.Uint16(p[24:]) != 0 || be.Uint32(p) > most || p[14] > 18 || p[13] < p[14] ||
		slices.Contains([]byte{0x02, 0x60}, p[5]) && be.Uint64(p[16:]) != 0 {
		w.t.Fatalf("report % x", p[:32])
	}
	return p, true
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
	a := w.tried(populateTries, "POPULATE TOKEN", lun, copyOutCDB(0x10, id, uint32(16+16*len(ranges))), populateParameters(ranges...))
	if a.code() != "GOOD" && !strings.HasSuffix(a.code(), "/0D/04") {
		return nil, 0
	}
	p, ok := w.report(populateTries, lun, id, windowsTokenAllocation, maxTokenReport, 0x10)
	if !ok {
		return nil, 0
	}
	be := binary.BigEndian
	o := 32 + int(p[13])
	count := be.Uint64(p[16:])
	if count > asked || (p[5] == 0x01) != (count == asked) || be.Uint32(p[o:]) != 0x0202 || be.Uint16(p[o+4:]) != 0 {
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
		a := w.tried(writeTries, "WRITE USING TOKEN", lun, copyOutCDB(0x11, id, uint32(len(parameters))), parameters)
		if a.code() == "GOOD" {
			done += n // all of it is written, and no status is asked for
			continue
		}
		count, ok := a.information()
		switch {
		case strings.HasSuffix(a.code(), "/0D/04") && ok && count > 0:
			done += uint64(count)
			continue
		case strings.HasPrefix(a.code(), "5/23/"):
			return done, a.code()
		}
		p, ok := w.report(writeTries, lun, id, l.reportAllocation(), maxWriteReport, 0x11)
		if !ok {
			return done, "no report, " + a.code()
		}
		if moved := binary.BigEndian.Uint64(p[16:]); moved > 0 {
			done += moved
			continue
		}
		return done, a.code()
	}
	return done, ""
}
