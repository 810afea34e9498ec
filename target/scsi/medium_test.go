package scsi

import (
	"testing"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

func TestPreFetch(t *testing.T) {
	f := newFixture(t)
	for _, cdb := range [][]byte{
		cdb10(0x34, 0, 0, 1), cdb10(0x34, preFetchIMMED, 0, 1), cdb10(0x34, 0, testBlocks-1, 1), cdb10(0x34, 0, 0, 0),
		cdb16(0x90, 0, 0, testBlocks), cdb16(0x90, preFetchIMMED, 5, 0), cdb16(0x90, 0, testBlocks-1, 0),
	} {
		if data := f.good(cdb, nil); len(data) != 0 {
			t.Errorf("% x: %d bytes of Data-In", cdb, len(data))
		}
	}
	for _, cdb := range [][]byte{
		cdb10(0x34, 0, testBlocks-1, 2), cdb10(0x34, preFetchIMMED, testBlocks, 0), cdb10(0x34, 0, 1<<31, 0),
		cdb16(0x90, 0, 1<<64-1, 1), cdb16(0x90, preFetchIMMED, testBlocks, 1),
	} {
		f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	}
	// The blocks are read, so that damage shows.
	f.vol.setError(&blockdev.CorruptError{Offset: 4096})
	f.do(cdb10(0x34, 0, 0, 16), nil).wantSense(t, sense.KeyMediumError, sense.ASCUnrecoveredReadError)
	f.good(cdb10(0x34, preFetchIMMED, 0, 16), nil)
}

func TestReadDefectData(t *testing.T) {
	f := newFixture(t)
	ten := func(request byte, length uint16) []byte {
		return []byte{0x37, 0, request, 0, 0, 0, 0, byte(length >> 8), byte(length), 0}
	}
	twelve := func(request byte, length byte) []byte {
		return []byte{0xB7, request, 0, 0, 0, 0, 0, 0, 0, length, 0, 0}
	}
	for name, tt := range map[string]struct {
		cdb  []byte
		want string
	}{
		"(10) header only":          {ten(0x00, 32), "00 00 0000"},
		"(10) both lists, index":    {ten(0x1C, 32), "00 1c 0000"},
		"(10) primary, long blocks": {ten(0x13, 32), "00 13 0000"},
		"(10) cut":                  {ten(0x18, 2), "00 18"},
		"(10) nothing":              {ten(0x18, 0), ""},
		"(12) header only":          {twelve(0x00, 32), "00 00 0000 00000000"},
		"(12) both lists, sectors":  {twelve(0x1D, 32), "00 1d 0000 00000000"},
		"(12) cut":                  {twelve(0x08, 4), "00 08 0000"},
	} {
		t.Run(name, func(t *testing.T) { wantHex(t, f.good(tt.cdb, nil), tt.want) })
	}
	for _, cdb := range [][]byte{ten(0x06, 32), ten(0x1F, 32), twelve(0x06, 32), twelve(0x17, 32)} {
		f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
}

func TestPreventAllowMediumRemoval(t *testing.T) {
	f := newFixture(t)
	f.good([]byte{0x1E, 0, 0, 0, 1, 0}, nil)
	f.do([]byte{0x1B, 0, 0, 0, 0x02, 0}, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB) // eject
	f.good([]byte{0x1E, 0, 0, 0, 0, 0}, nil)
	for _, obsolete := range []byte{2, 3} {
		f.do([]byte{0x1E, 0, 0, 0, obsolete, 0}, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
}

// With IMMED a stop does not wait for its flush, whose failure becomes a deferred
// error.
func TestStartStopUnit_IMMED(t *testing.T) {
	f, v := newGatedFixture(t)
	f.good([]byte{0x1B, startStopIMMED, 0, 0, 0, 0}, nil)
	<-v.began
	f.good(testUnitReady, nil)
	v.end <- blockdev.ErrNoSpace
	if err := f.lu.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantHex(t, f.good([]byte{0x03, 0x01, 0, 0, 255, 0}, nil), "73 07 2707 000000 00")
}

// What a disk in a store cannot do truthfully is refused as not there.
func TestCommands_NotSupported(t *testing.T) {
	f := newFixture(t)
	for name, cdb := range map[string][]byte{
		"REASSIGN BLOCKS": {0x07, 0, 0, 0, 0, 0},
		"WRITE BUFFER":    make([]byte, 10), "READ BUFFER(10)": make([]byte, 10),
		"READ LONG(10)": make([]byte, 10), "WRITE LONG(10)": make([]byte, 10), "LOG SELECT": make([]byte, 10),
		"READ LONG(16)": make([]byte, 16), "WRITE LONG(16)": make([]byte, 16), "READ BUFFER(16)": make([]byte, 16),
	} {
		code := map[string][2]byte{
			"WRITE BUFFER": {0x3B}, "READ BUFFER(10)": {0x3C, 2}, "READ LONG(10)": {0x3E}, "WRITE LONG(10)": {0x3F}, "LOG SELECT": {0x4C, 2},
			"READ LONG(16)": {0x9E, 0x11}, "WRITE LONG(16)": {0x9F, 0x11}, "READ BUFFER(16)": {0x9B, 2},
		}
		if c, ok := code[name]; ok {
			cdb[0], cdb[1] = c[0], c[1]
		}
		t.Run(name, func(t *testing.T) {
			f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
		})
	}
}
