package scsi

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"odx/backstore"
	"odx/blockdev"
	"odx/target/scsi/sense"
)

// blockCDB builds a READ or WRITE of one length.
type blockCDB struct {
	name  string
	read  func(lba uint64, blocks uint32) []byte
	write func(lba uint64, blocks uint32) []byte
}

func blockCDBs() []blockCDB {
	return []blockCDB{
		{"6",
			func(lba uint64, n uint32) []byte { return cdb6(0x08, uint32(lba), byte(n)) },
			func(lba uint64, n uint32) []byte { return cdb6(0x0A, uint32(lba), byte(n)) }},
		{"10",
			func(lba uint64, n uint32) []byte { return cdb10(0x28, 0, uint32(lba), uint16(n)) },
			func(lba uint64, n uint32) []byte { return cdb10(0x2A, 0, uint32(lba), uint16(n)) }},
		{"12",
			func(lba uint64, n uint32) []byte { return cdb12(0xA8, 0, uint32(lba), n) },
			func(lba uint64, n uint32) []byte { return cdb12(0xAA, 0, uint32(lba), n) }},
		{"16",
			func(lba uint64, n uint32) []byte { return cdb16(0x88, 0, lba, n) },
			func(lba uint64, n uint32) []byte { return cdb16(0x8A, 0, lba, n) }},
	}
}

func TestReadWrite(t *testing.T) {
	for _, c := range blockCDBs() {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			for _, at := range []struct{ lba, blocks int }{{0, 1}, {1, 7}, {testBlocks - 255, 255}, {testBlocks - 1, 1}} {
				data := pattern(at.blocks*512, byte(at.lba))
				f.good(c.write(uint64(at.lba), uint32(at.blocks)), data)
				if !bytes.Equal(f.vol.data[at.lba*512:][:len(data)], data) {
					t.Fatalf("LBA %d, %d blocks: volume data differs", at.lba, at.blocks)
				}
				if got := f.good(c.read(uint64(at.lba), uint32(at.blocks)), nil); !bytes.Equal(got, data) {
					t.Fatalf("LBA %d, %d blocks: read data differs", at.lba, at.blocks)
				}
			}
		})
	}
}

func TestReadWrite_4096ByteBlocks(t *testing.T) {
	f := newFixture(t, func(c *LUConfig) { c.LogicalBlockLength = 4096 })
	data := pattern(3*4096, 1)
	f.good(cdb16(0x8A, 0, testBlocks/8-3, 3), data)
	if !bytes.Equal(f.vol.data[len(f.vol.data)-len(data):], data) {
		t.Error("the last blocks of 4096 bytes hold something else")
	}
	f.do(cdb16(0x88, 0, testBlocks/8-2, 3), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
}

func TestRead6_ZeroLength(t *testing.T) {
	f := newFixture(t)
	data := pattern(256*512, 9)
	f.good(cdb6(0x0A, 5, 0), data)
	if got := f.good(cdb6(0x08, 5, 0), nil); !bytes.Equal(got, data) {
		t.Errorf("READ(6) of 0 blocks returned %d bytes, want 256 blocks", len(got))
	}
}

func TestReadWrite_Range(t *testing.T) {
	tests := []struct {
		name   string
		lba    uint64
		blocks uint32
		want   sense.ASC
	}{
		{"nothing at the start", 0, 0, sense.ASCNone},
		{"nothing right after the end", testBlocks, 0, sense.ASCNone},
		{"nothing past the end", testBlocks + 1, 0, sense.ASCLBAOutOfRange},
		{"nothing at 2^63", 1 << 63, 0, sense.ASCLBAOutOfRange},
		{"nothing at the maximum LBA", 1<<64 - 1, 0, sense.ASCLBAOutOfRange},
		{"one block past the end", testBlocks, 1, sense.ASCLBAOutOfRange},
		{"last block and one more", testBlocks - 1, 2, sense.ASCLBAOutOfRange},
		{"bytes that overflow 64 bits", 1 << 55, 1, sense.ASCLBAOutOfRange},
		{"bytes that overflow 63 bits", 1 << 54, 1, sense.ASCLBAOutOfRange},
		{"sum that overflows", 1<<64 - 1, 2, sense.ASCLBAOutOfRange},
		{"maximum number of blocks", 0, 1<<32 - 1, sense.ASCLBAOutOfRange},
	}
	for _, tt := range tests {
		for _, op := range []struct {
			name string
			code byte
		}{{"READ", 0x88}, {"WRITE", 0x8A}, {"VERIFY", 0x8F}, {"WRITE AND VERIFY", 0x8E}} {
			t.Run(op.name+"/"+tt.name, func(t *testing.T) {
				r := newFixture(t).do(cdb16(op.code, 0, tt.lba, tt.blocks), make([]byte, min(tt.blocks, 2)*512))
				if tt.want == sense.ASCNone {
					r.wantStatus(t, StatusGood)
					return
				}
				r.wantSense(t, sense.KeyIllegalRequest, tt.want)
			})
		}
	}
}

func TestReadWrite_ProtectionInformation(t *testing.T) {
	f := newFixture(t)
	for protect := byte(1); protect < 8; protect++ {
		for _, cdb := range [][]byte{
			cdb10(0x28, protect<<5, 0, 1), cdb12(0xA8, protect<<5, 0, 1), cdb16(0x88, protect<<5, 0, 1),
			cdb10(0x2A, protect<<5, 0, 1), cdb12(0xAA, protect<<5, 0, 1), cdb16(0x8A, protect<<5, 0, 1),
			cdb10(0x2F, protect<<5, 0, 1), cdb12(0xAF, protect<<5, 0, 1), cdb16(0x8F, protect<<5, 0, 1),
			cdb10(0x2E, protect<<5, 0, 1), cdb10(0x41, protect<<5, 0, 1), cdb16(0x93, protect<<5, 0, 1),
			cdb16(0x89, protect<<5, 0, 1),
		} {
			r := f.do(cdb, make([]byte, 512))
			r.wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
			if !bytes.Equal(r.sense[15:18], []byte{0xCF, 0, 1}) {
				t.Errorf("% x: field pointer % x, want byte 1 bit 7 of the CDB", cdb, r.sense[15:18])
			}
		}
	}
}

func TestReadWrite_FUA(t *testing.T) {
	tests := []struct {
		name    string
		cdb     []byte
		flushes int64
	}{
		{"WRITE(6)", cdb6(0x0A, 0, 1), 0},
		{"WRITE(10)", cdb10(0x2A, 0, 0, 1), 0},
		{"WRITE(10) DPO", cdb10(0x2A, 0x10, 0, 1), 0},
		{"WRITE(10) FUA", cdb10(0x2A, 0x08, 0, 1), 1},
		{"WRITE(16) FUA, no blocks", cdb16(0x8A, 0x08, 0, 0), 1},
		{"READ(16) FUA", cdb16(0x88, 0x08, 0, 1), 1},
		{"READ(12)", cdb12(0xA8, 0, 0, 1), 0},
		{"WRITE AND VERIFY(10)", cdb10(0x2E, 0x02, 0, 1), 1},
		{"WRITE SAME(10)", cdb10(0x41, 0, 0, 4), 0},
		{"COMPARE AND WRITE FUA", compareAndWriteCDB(0x08, 0, 0), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.good(tt.cdb, make([]byte, dataOutLength(tt.cdb)))
			if got := f.vol.flushes.Load(); got != tt.flushes {
				t.Errorf("%d flushes, want %d", got, tt.flushes)
			}
		})
	}
}

func TestReadWrite_SixByteFUA(t *testing.T) {
	if forcesUnitAccess(cdb6(0x0A, 0x080000, 1)) {
		t.Error("a bit of the LBA was taken for FUA")
	}
}

func TestReadWrite_WriteThrough(t *testing.T) {
	f := newFixture(t)
	f.good(modeSelect6(cachingPage(0)), cachingPage(0))
	before := f.vol.flushes.Load()
	for i, cdb := range [][]byte{
		cdb10(0x2A, 0, 0, 1), cdb10(0x41, 0, 0, 1), cdb16(0x93, 0x08, 0, 1), compareAndWriteCDB(0, 0, 1), unmapCDB(24),
	} {
		out := make([]byte, dataOutLength(cdb))
		if cdb[0] == 0x42 {
			out = unmapList([2]uint64{0, 1})
		}
		f.good(cdb, out)
		if got := f.vol.flushes.Load() - before; got != int64(i+1) {
			t.Errorf("operation code %02Xh: %d flushes in all, want %d", cdb[0], got, i+1)
		}
	}
}

// dataOutLength is what a well-formed initiator sends with a CDB of these tests.
func dataOutLength(cdb []byte) int {
	r := rangeOf(cdb)
	switch cdb[0] {
	case 0x41:
		return 512
	case 0x93:
		return 512 * int(1-cdb[1]&1)
	case 0x89:
		return 1024 * int(cdb[13])
	case 0x08, 0x28, 0xA8, 0x88:
		return 0
	}
	return int(r.blocks) * 512
}

func compareAndWriteCDB(flags byte, lba uint64, blocks byte) []byte {
	c := cdb16(0x89, flags, lba, 0)
	c[13] = blocks
	return c
}

// An initiator that offers less data than its CDB asks for has the whole blocks
// of it written; more than that is left where it is. Part of a block is refused.
func TestWrite_Residual(t *testing.T) {
	for _, tt := range []struct {
		blocks   uint16
		expected int
		refused  bool
		written  int
	}{
		{1, 0, false, 0}, {1, 200, true, 0}, {2, 512, false, 512}, {2, 1023, true, 0},
		{1, 512, false, 512}, {1, 1024, false, 512}, {1, 10000, false, 512},
	} {
		for name, cdb := range map[string][]byte{"WRITE": cdb10(0x2A, 0, 0, tt.blocks), "WRITE AND VERIFY": cdb10(0x2E, compareAll, 0, tt.blocks)} {
			t.Run(fmt.Sprintf("%s, %d blocks, %d bytes", name, tt.blocks, tt.expected), func(t *testing.T) {
				f := newFixture(t)
				want := pattern(8*512, 0xAA)
				copy(f.vol.data, want)
				out := bytes.Repeat([]byte{'b'}, tt.expected)
				r := f.run(request{nexus: f.nexus, cdb: cdb, out: out, expectedOut: tt.expected})
				if r.wanted != uint32(tt.blocks)*512 {
					t.Errorf("wanted %d bytes; the transport counts the residual from it", r.wanted)
				}
				if tt.refused {
					r.wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
				} else {
					r.wantStatus(t, StatusGood)
				}
				copy(want, out[:tt.written])
				if !bytes.Equal(f.vol.data[:len(want)], want) {
					t.Error("medium data differs")
				}
			})
		}
	}
}

func TestWrite_MissingDataOut(t *testing.T) {
	f := newFixture(t)
	task := NewTask(&f.pool)
	task.Reset(f.nexus, cdb10(0x2A, 0, 0, 2))
	task.ExpectedOut = 1024
	if f.target.Prepare(task) {
		t.Fatal("refused")
	}
	task.AllocDataOut(512) // a transport that gave up half-way
	f.target.Execute(context.Background(), task)
	key, asc := decodeSense(t, task.Sense())
	if task.Result != StatusCheckCondition || key != sense.KeyIllegalRequest || asc != sense.ASCInvalidFieldInCommandIU {
		t.Errorf("status %02Xh, %s, %s", task.Result, key, asc)
	}
}

func TestWrite_DataOutBound(t *testing.T) {
	f := newFixture(t)
	op := Operation{Name: "EXTENDED COPY", Usage: make([]byte, 16), Prepare: ParameterListLength(10, 4), Execute: executeNoOp}
	op.Usage[0] = 0x83
	if err := f.lu.Install(0x83, 0, op); err != nil {
		t.Fatal(err)
	}
	cdb := cdb16(0x83, 0, 0, 0xFFFFFFFF)
	f.run(request{nexus: f.nexus, cdb: cdb, expectedOut: 1<<32 - 1}).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
}

func TestCompareAndWrite(t *testing.T) {
	f := newFixture(t)
	old, fresh := pattern(2*512, 1), pattern(2*512, 2)
	copy(f.vol.data[512:], old)

	f.good(compareAndWriteCDB(0, 1, 2), append(bytes.Clone(old), fresh...))
	if !bytes.Equal(f.vol.data[512:][:1024], fresh) {
		t.Error("equal data, but not written")
	}
	for _, at := range []int{0, 511, 512, 700} {
		compare := bytes.Clone(fresh)
		compare[at] ^= 1
		r := f.do(compareAndWriteCDB(0, 1, 2), append(compare, old...))
		r.wantSense(t, sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
		if info := r.sense[3:7]; r.sense[0] != 0xF0 || int(info[2])<<8|int(info[3]) != at {
			t.Errorf("difference at byte %d: INFORMATION % x", at, info)
		}
	}
	if !bytes.Equal(f.vol.data[512:][:1024], fresh) {
		t.Error("different data, but written")
	}
	f.good(compareAndWriteCDB(0, 0, 0), nil)
	f.do(compareAndWriteCDB(0, testBlocks, 1), make([]byte, 1024)).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	f.do(compareAndWriteCDB(0, 0, 1), make([]byte, 2048)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	f.do(compareAndWriteCDB(0, 0, 2), make([]byte, 1024)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)

	plain := newFixture(t, func(c *LUConfig) { c.Volume = plainVolume{c.Volume} })
	plain.do(compareAndWriteCDB(0, 0, 1), make([]byte, 1024)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
}

func TestLogicalUnit_Sense(t *testing.T) {
	corrupt := &blockdev.CorruptError{Name: "disk", Offset: 4096, Err: fmt.Errorf("checksum")}
	tests := []struct {
		name string
		err  error
		key  sense.Key
		asc  sense.ASC
	}{
		{"full", fmt.Errorf("write: %w", blockdev.ErrNoSpace), sense.KeyDataProtect, sense.ASCSpaceAllocationFailed},
		{"a snapshot", fmt.Errorf("write: %w", blockdev.ErrReadOnly), sense.KeyDataProtect, sense.ASCWriteProtected},
		{"damaged", fmt.Errorf("read: %w", corrupt), sense.KeyMediumError, sense.ASCUnrecoveredReadError},
		{"damaged, no location", blockdev.ErrCorrupt, sense.KeyMediumError, sense.ASCUnrecoveredReadError},
		{"outside", blockdev.ErrRange, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange},
		{"closed", blockdev.ErrClosed, sense.KeyNotReady, sense.ASCLogicalUnitNotReady},
		{"aborted", context.Canceled, sense.KeyAbortedCommand, sense.ASCNone},
		{"too slow", context.DeadlineExceeded, sense.KeyAbortedCommand, sense.ASCCommandTimeoutDuringProcessing},
		{"anything else", fmt.Errorf("disk on fire"), sense.KeyHardwareError, sense.ASCInternalTargetFailure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.vol.setError(tt.err)
			f.do(cdb10(0x28, 0, 0, 16), nil).wantSense(t, tt.key, tt.asc)
			f.do(cdb10(0x2A, 0, 0, 1), make([]byte, 512)).wantSense(t, tt.key, tt.asc)
			f.do(cdb10(0x35, 0, 0, 0), nil).wantSense(t, tt.key, tt.asc)
		})
	}
}

func TestRead_MediumErrorInformation(t *testing.T) {
	f := newFixture(t)
	f.vol.setError(&blockdev.CorruptError{Offset: 8192, Err: fmt.Errorf("checksum")})
	for _, tt := range []struct {
		lba  uint32
		want byte
	}{{10, 16}, {16, 16}, {17, 17}} { // the store's block starts at LBA 16
		r := f.do(cdb10(0x28, 0, tt.lba, 16), nil)
		if len(r.data) != 0 {
			t.Errorf("%d bytes of Data-In with an error", len(r.data))
		}
		wantHex(t, r.sense[:8], fmt.Sprintf("f0 00 03 000000%02x 0a", tt.want))
	}
}

// TestRead_MediumErrorElsewhere: an offset outside of what was read is that of another
// device, and is not reported.
func TestRead_MediumErrorElsewhere(t *testing.T) {
	f := newFixture(t)
	for _, offset := range []int64{0, 4096, 16384, 1 << 30} {
		f.vol.setError(&blockdev.CorruptError{Offset: offset, Err: fmt.Errorf("checksum")})
		r := f.do(cdb10(0x28, 0, 16, 16), nil) // bytes 8192 to 16384
		wantHex(t, r.sense[:8], "70 00 03 00000000 0a")
	}
}

func TestLogicalUnit_MapErrors(t *testing.T) {
	f := newFixture(t)
	mine := fmt.Errorf("token: %w", backstore.ErrNotFound)
	f.lu.MapErrors(ErrorSense{Err: backstore.ErrNotFound, Key: sense.KeyIllegalRequest, ASC: 0x2304})
	if got := f.lu.Sense(mine); got.Key != sense.KeyIllegalRequest || got.ASC != 0x2304 {
		t.Errorf("got %v", got)
	}
}
