package copymgr

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"odx/target/scsi/sense"
	"odx/tokens"
)

func TestVPD_Layout(t *testing.T) {
	l := tokens.Limits{TokenBytes: 1 << 40, MaxInactivity: 10 * time.Minute, DefaultInactivity: time.Minute}
	for _, tc := range []struct {
		name        string
		blockLength int
		mapped      bool
	}{
		{"vpd8f-512.hex", 512, true},
		{"vpd8f-4096.hex", 4096, true},
		{"vpd8f-512-copied.hex", 512, false},
	} {
		c := newCopyLimits(tc.blockLength, tc.mapped, l)
		golden(t, tc.name, c.thirdPartyCopyPage((&logicalUnit{}).operationTable()))
	}
}

// Several descriptors have the same limits, in blocks or in bytes.
func TestVPD_Consistent(t *testing.T) {
	for _, l := range []tokens.Limits{{TokenBytes: 1 << 40}, {TokenBytes: 1<<20 + 512}, {TokenBytes: 1 << 50}} {
		for _, blockLength := range []int{512, 4096} {
			c := newCopyLimits(blockLength, true, l)
			d := descriptors(t, c.thirdPartyCopyPage((&logicalUnit{}).operationTable()))
			limits, features := d[0x0000], d[0x0106][48:]
			be := binary.BigEndian
			maxBlocks, optimalBlocks := be.Uint64(limits[20:]), be.Uint64(limits[28:])
			if got := be.Uint64(features[8:]); got != maxBlocks*uint64(blockLength) {
				t.Errorf("MAXIMUM BYTES IN BLOCK ROD %d, MAXIMUM TOKEN TRANSFER SIZE %d blocks of %d", got, maxBlocks, blockLength)
			}
			if got := be.Uint64(features[16:]); got != optimalBlocks*uint64(blockLength) {
				t.Errorf("OPTIMAL BYTES IN BLOCK ROD TRANSFER %d, OPTIMAL TRANSFER COUNT %d blocks of %d", got, optimalBlocks, blockLength)
			}
			if maxBlocks >= 1<<32 {
				t.Errorf("MAXIMUM TOKEN TRANSFER SIZE %d: Windows sums the blocks of a command in 32 bits", maxBlocks)
			}
			if optimalBlocks > maxBlocks {
				t.Errorf("OPTIMAL TRANSFER COUNT %d exceeds MAXIMUM TOKEN TRANSFER SIZE %d", optimalBlocks, maxBlocks)
			}
		}
	}
}

// descriptors walks page 8Fh as initiators do and returns the descriptors by type.
func descriptors(t *testing.T, p []byte) map[uint16][]byte {
	t.Helper()
	found := make(map[uint16][]byte)
	last := -1
	for len(p) > 0 {
		if len(p) < 4 {
			t.Fatalf("%d bytes after the last descriptor", len(p))
		}
		kind, length := binary.BigEndian.Uint16(p), 4+int(binary.BigEndian.Uint16(p[2:]))
		if int(kind) <= last {
			t.Errorf("descriptor %04Xh after %04Xh", kind, last)
		}
		if length%4 != 0 || length > len(p) {
			t.Fatalf("descriptor %04Xh of %d bytes, %d are left", kind, length, len(p))
		}
		found[kind], last, p = p[:length], int(kind), p[length:]
	}
	return found
}

func TestReport_Layout(t *testing.T) {
	var token tokens.Token
	for i := range token {
		token[i] = byte(i)
	}
	populated := report{steps: 1, units: unitsDestinationBlocks, serviceAction: 0x10, status: copyDone, completion: statusGood, transferCount: 0x80000, token: &token}
	golden(t, "rrti-populate.hex", populated.receiveRODTokenInformation())
	golden(t, "rcs-populate.hex", populated.receiveCopyStatusLID4())

	written := report{steps: 1, units: unitsDestinationBlocks, serviceAction: 0x11, status: copyDone, completion: statusGood, transferCount: 8}
	golden(t, "rrti-write.hex", written.receiveRODTokenInformation())

	short := report{steps: 1, units: unitsDestinationBlocks, serviceAction: 0x11, sense: underrun(0x1234), transferCount: 0x1234}
	short.conclude(nil, nil)
	golden(t, "rrti-write-short.hex", short.receiveRODTokenInformation())

	refused := report{steps: 1, units: unitsDestinationBlocks, serviceAction: 0x11, sense: sense.InvalidFieldInParameterList(534, sense.WholeField)}
	refused.conclude(nil, nil)
	golden(t, "rrti-write-refused.hex", refused.receiveRODTokenInformation())
	golden(t, "rcs-write-refused.hex", refused.receiveCopyStatusLID4())

	running := report{units: unitsDestinationBlocks, serviceAction: 0x11, status: copyRunningForeground, delay: 100 * time.Millisecond}
	golden(t, "rrti-write-running.hex", running.receiveRODTokenInformation())
}

func TestReport_SensePadding(t *testing.T) {
	r := report{sense: underrun(7)}
	r.conclude(nil, nil)
	p := r.receiveRODTokenInformation()
	if p[13] != 20 || p[14] != 18 {
		t.Errorf("sense field of %d bytes with %d valid, want 20 and 18", p[13], p[14])
	}
	if got := binary.BigEndian.Uint32(p); got != 32+20+4-4 || len(p) != int(got)+4 {
		t.Errorf("AVAILABLE DATA %d of %d bytes", got, len(p))
	}
	if !bytes.Equal(p[52:], []byte{0, 0, 0, 0}) {
		t.Errorf("ROD TOKEN DESCRIPTORS LENGTH % x", p[52:])
	}
}

// captured are parameter lists as initiators send them.
func capturedPopulate() []byte {
	return []byte{
		0x00, 0x1e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1e, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10,
		0x00, 0x00, 0x00, 0x00, 0x12, 0x34, 0x56, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	}
}

func TestParameters_PopulateToken(t *testing.T) {
	p := capturedPopulate()
	p[2] = 0x03 // RTV, IMMED
	l, err := parsePopulate(p, 64)
	if err != nil {
		t.Fatal(err)
	}
	if !l.rtv || l.inactivityTimeout != 30 || l.rodType != tokens.RODTypePointInTimeDefault {
		t.Errorf("%+v", l)
	}
	if len(l.ranges) != 1 || l.ranges[0] != (blockRange{lba: 0x12345600, blocks: 0x80000, offset: 16}) {
		t.Errorf("ranges %+v", l.ranges)
	}
}

func TestParameters_WriteUsingToken(t *testing.T) {
	token := bytes.Repeat([]byte{0xEE}, 512)
	p := writeParameters(token, 0x0102030405060708, rangeOf{1, 2}, rangeOf{3, 4})
	p[2] = 0x02 // DEL_TKN
	l, err := parseWriteUsing(p, 64)
	if err != nil {
		t.Fatal(err)
	}
	if !l.deleteToken || l.offsetIntoROD != 0x0102030405060708 || !bytes.Equal(l.token[:], token) {
		t.Errorf("%+v", l)
	}
	if len(l.ranges) != 2 || l.ranges[1] != (blockRange{lba: 3, blocks: 4, offset: 552}) {
		t.Errorf("ranges %+v", l.ranges)
	}
	golden(t, "write-using-token-parameters.hex", p)
	golden(t, "populate-token-parameters.hex", populateParameters(rangeOf{1, 2}, rangeOf{0x123456789A, 0xFFFFFFFF}))
}

func TestParameters_ByteOffset(t *testing.T) {
	for _, tc := range []struct {
		blocks uint64
		bytes  int64
		ok     bool
	}{
		{0, 0, true},
		{7, 7 * 512, true},
		{1<<54 - 1, (1<<54 - 1) * 512, true},
		{1 << 54, 0, false},
		{1 << 63, 0, false},
		{1<<64 - 1, 0, false},
	} {
		if got, ok := byteOffset(tc.blocks, 512); ok != tc.ok || ok && got != tc.bytes {
			t.Errorf("%d blocks: %d, %v", tc.blocks, got, ok)
		}
	}
}

// Any bytes give an error or ranges inside the limits.
func FuzzPopulateParameters(f *testing.F) {
	f.Add(capturedPopulate())
	f.Add(populateParameters(rangeOf{0, 1}, rangeOf{1, 1}, rangeOf{1 << 40, 0}))
	f.Add(populateParameters(rangeOf{1<<64 - 1, 1<<32 - 1}))
	f.Fuzz(func(t *testing.T, p []byte) {
		l, err := parsePopulate(p, 64)
		if err == nil {
			checkFuzzedRanges(t, p, l.ranges)
		}
	})
}

// Likewise.
func FuzzWriteUsingParameters(f *testing.F) {
	f.Add(writeParameters(nil, 0, rangeOf{0, 1}))
	f.Add(writeParameters(make([]byte, 512), 1<<63, rangeOf{5, 9}, rangeOf{14, 1}))
	f.Add([]byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, p []byte) {
		l, err := parseWriteUsing(p, 64)
		if err == nil {
			if off, ok := byteOffset(l.offsetIntoROD, 512); ok && (off < 0 || uint64(off)/512 != l.offsetIntoROD) {
				t.Errorf("offset of %d blocks is %d bytes", l.offsetIntoROD, off)
			}
			checkFuzzedRanges(t, p, l.ranges)
		}
	})
}

func checkFuzzedRanges(t *testing.T, p []byte, ranges []blockRange) {
	if len(ranges) > 64 || len(ranges)*16 > len(p) {
		t.Fatalf("%d ranges in %d bytes", len(ranges), len(p))
	}
	const capacity, most = 1 << 30, 1 << 28
	total, err := checkRanges(ranges, rangeLimits{capacity, most, most})
	if err != nil {
		return
	}
	seen := make(map[uint64]bool)
	var sum int64
	for _, r := range byteRanges(ranges, 512) {
		if r.Offset < 0 || r.Length <= 0 || r.Offset+r.Length > capacity*512 {
			t.Errorf("range %+v is outside", r)
		}
		if seen[uint64(r.Offset)] {
			t.Errorf("two ranges begin at %d", r.Offset)
		}
		seen[uint64(r.Offset)] = true
		sum += r.Length
	}
	if uint64(sum) != total*512 || total > most {
		t.Errorf("ranges of %d bytes, total %d blocks", sum, total)
	}
}
