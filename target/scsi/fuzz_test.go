package scsi

import (
	"bytes"
	"testing"

	"odx/target/scsi/sense"
)

// fuzzCommand runs a command of hostile content: whatever it is, it ends with a
// status, with sense data exactly when that is CHECK CONDITION, and within the
// limits of memory. An access outside the medium panics in memVolume.
func fuzzCommand(t *testing.T, f *fixture, lun [8]byte, cdb, out []byte, expected uint32) {
	task := NewTask(&f.pool)
	defer task.Release()
	task.Reset(f.nexus, cdb)
	task.Lun, task.ExpectedOut, task.Result = lun, expected, 0xFF
	if !f.target.Prepare(task) {
		if task.Wanted > maximumBuffered && !task.Streamed() {
			t.Fatalf("% x: wants %d bytes", cdb, task.Wanted)
		}
		f.execute(task, out)
	}
	switch task.Result {
	case StatusGood, StatusReservationConflict:
		if len(task.Sense()) != 0 {
			t.Fatalf("% x: status %02Xh with sense data % x", cdb, task.Result, task.Sense())
		}
	case StatusCheckCondition:
		if key, asc := decodeSense(t, task.Sense()); key == sense.KeyHardwareError || len(task.DataIn()) != 0 {
			t.Fatalf("% x: %s, %s, %d bytes of Data-In", cdb, key, asc, len(task.DataIn()))
		}
	default:
		t.Fatalf("% x: status %02Xh", cdb, task.Result)
	}
	if len(task.DataIn()) > StreamPiece {
		t.Fatalf("% x: %d bytes of Data-In", cdb, len(task.DataIn()))
	}
}

func newFuzzFixture(f testing.TB) *fixture {
	return newFixture(f, space, func(c *LUConfig) { c.Volume = newMappedVolume("m..m.mm.mmmm....") })
}

func FuzzCDB(f *testing.F) {
	for code := range 256 {
		cdb := make([]byte, 16)
		cdb[0] = byte(code)
		f.Add(uint64(0), cdb, make([]byte, 512), uint32(512))
	}
	f.Add(uint64(0), cdb16(0x88, 0, 1<<64-1, 1<<32-1), []byte{}, uint32(0))
	f.Add(uint64(0), cdb16(0x93, 0x09, 1<<54, 0), []byte{}, uint32(0))
	f.Add(uint64(0), compareAndWriteCDB(0, 127, 1), make([]byte, 1024), uint32(1024))
	f.Add(uint64(1)<<48, inquiryCDB(1, 0x83, 65535), []byte{}, uint32(0))
	f.Add(uint64(0), getLBAStatus(127, 1<<32-1), []byte{}, uint32(0))
	f.Add(uint64(0), logSense(0, 0x0C, 0, 2, 65535), []byte{}, uint32(0))
	f.Add(uint64(0), rsocCDB(0x83, 0xA3, 0x0C, 1<<32-1), []byte{}, uint32(0))
	f.Add(uint64(0), writeAtomicCDB(0x18, 120, 0, 8), make([]byte, 4096), uint32(4096))
	f.Add(uint64(0), cdb16(opORWrite, 0x08, 127, 1), make([]byte, 512), uint32(512))
	f.Add(uint64(0), formatWithList, []byte{0, 0x82, 0, 0}, uint32(4))
	f.Add(uint64(0), []byte{0x04, 0x30, 0, 0, 0, 0}, make([]byte, 8), uint32(8))
	f.Add(uint64(0), blockEraseLater, []byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, lun uint64, cdb, out []byte, expected uint32) {
		fx := newFuzzFixture(t)
		fuzzCommand(t, fx, [8]byte{byte(lun >> 56), byte(lun >> 48), 7: byte(lun)}, cdb, out, expected)
		fx.do(testUnitReady, nil) // the unit still answers
	})
}

func FuzzUnmapParameterList(f *testing.F) {
	f.Add(unmapList())
	f.Add(unmapList([2]uint64{0, 1}, [2]uint64{127, 1}))
	f.Add(unmapList([2]uint64{1<<64 - 1, 1<<32 - 1}))
	f.Add(bytes.Repeat([]byte{0xFF}, 65535))
	f.Fuzz(func(t *testing.T, list []byte) {
		fx := newFuzzFixture(t)
		list = list[:min(len(list), 65535)]
		fuzzCommand(t, fx, [8]byte{}, unmapCDB(uint16(len(list))), list, uint32(len(list)))
	})
}

func FuzzModeSelectParameterList(f *testing.F) {
	f.Add(byte(6), cachingPage(0))
	f.Add(byte(6), controlPage(4, 8))
	f.Add(byte(6), recoveryPage(0))
	f.Add(byte(10), []byte{0, 0, 0, 0, 1, 0, 0, 16, 23: 2})
	f.Add(byte(10), []byte{0, 0, 0, 0, 0, 0, 0, 0, 0x4A, 1, 0, 0x1C, 39: 0})
	f.Fuzz(func(t *testing.T, form byte, list []byte) {
		fx := newFuzzFixture(t)
		cdb := modeSelect10(list[:min(len(list), 65535)])
		if form == 6 {
			cdb = modeSelect6(list[:min(len(list), 255)])
		}
		fuzzCommand(t, fx, [8]byte{}, cdb, list, uint32(len(list)))
		for _, se := range [][]byte{modeSense6(0x3F, 0xFF, 255), modeSense10(0x10, 0x3F, 0xFF, 255)} {
			fuzzCommand(t, fx, [8]byte{}, se, nil, 0)
		}
	})
}
