package scsi

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore"
	"odx/blockdev"
	"odx/target/scsi/sense"
)

// writeAtomicCDB is WRITE ATOMIC(16).
func writeAtomicCDB(flags byte, lba uint64, boundary, blocks uint16) []byte {
	c := make([]byte, 16)
	c[0], c[1] = 0x9C, flags
	binary.BigEndian.PutUint64(c[2:], lba)
	binary.BigEndian.PutUint16(c[10:], boundary)
	binary.BigEndian.PutUint16(c[12:], blocks)
	return c
}

func TestORWrite(t *testing.T) {
	f := newFixture(t)
	f.good(cdb16(0x8A, 0, 10, 2), bytes.Repeat([]byte{0x0F}, 1024))
	f.good(cdb16(opORWrite, 0, 11, 2), bytes.Repeat([]byte{0x30}, 1024))
	want := append(append(bytes.Repeat([]byte{0x0F}, 512), bytes.Repeat([]byte{0x3F}, 512)...), bytes.Repeat([]byte{0x30}, 512)...)
	if got := f.good(cdb16(0x88, 0, 10, 3), nil); !bytes.Equal(got, want) {
		t.Errorf("got %x", got)
	}
	f.good(cdb16(opORWrite, 0, testBlocks, 0), nil)
	if f.vol.flushes.Load() != 0 {
		t.Error("flushed without FUA")
	}
	f.good(cdb16(opORWrite, 0x18, 0, 1), make([]byte, 512)) // DPO, FUA
	if f.vol.flushes.Load() != 1 {
		t.Error("FUA did not flush")
	}
	f.do(cdb16(opORWrite, 0x20, 0, 1), make([]byte, 512)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB) // ORPROTECT
	f.do(cdb16(opORWrite, 0, testBlocks-1, 2), make([]byte, 1024)).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	f.do(cdb16(opORWrite, 0, 0, 2), make([]byte, 512)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
}

// A long ORWRITE that begins inside a block of the store goes in steps that cover
// all of it, on a volume of the store.
func TestORWrite_Long(t *testing.T) {
	f, _ := newStoreFixture(t, backstore.Options{}, 8<<20)
	const lba, blocks = 3, 5000
	old, bits := pattern(blocks*512, 1), pattern(blocks*512, 77)
	f.good(cdb16(0x8A, 0, lba, blocks), old)
	f.good(cdb16(opORWrite, 0, lba, blocks), bits)
	for i, b := range bits {
		old[i] |= b
	}
	if got := f.good(cdb16(0x88, 0, lba, blocks), nil); !bytes.Equal(got, old) {
		t.Error("blocks are not the OR of old data and Data-Out")
	}
	for _, at := range []uint64{lba - 1, lba + blocks} {
		if got := f.good(cdb16(0x88, 0, at, 1), nil); !isZero(got) {
			t.Errorf("LBA %d outside the range changed", at)
		}
	}
}

func TestWriteAtomic(t *testing.T) {
	const maximum = blockdev.MaximumAtomicWrite / 512
	f := newFixture(t)
	data := pattern(blockdev.MaximumAtomicWrite, 5)
	f.good(writeAtomicCDB(0, 8, 0, maximum), data)
	if !bytes.Equal(f.vol.data[4096:][:len(data)], data) || !isZero(f.vol.data[:4096]) {
		t.Error("data written to another range")
	}
	f.good(writeAtomicCDB(0, testBlocks, 0, 0), nil)
	f.good(writeAtomicCDB(0x08, 0, 0, 8), data[:4096]) // FUA
	if f.vol.flushes.Load() != 1 {
		t.Error("FUA did not flush")
	}
	for name, tt := range map[string]struct {
		cdb  []byte
		want sense.ASC
	}{
		"WRPROTECT":               {writeAtomicCDB(0x20, 0, 0, 8), sense.ASCInvalidFieldInCDB},
		"boundary":                {writeAtomicCDB(0, 0, 8, 8), sense.ASCInvalidFieldInCDB},
		"longer than the maximum": {writeAtomicCDB(0, 0, 0, maximum+8), sense.ASCInvalidFieldInCDB},
		"length not a multiple":   {writeAtomicCDB(0, 0, 0, 9), sense.ASCInvalidFieldInCDB},
		"address not a multiple":  {writeAtomicCDB(0, 4, 0, 8), sense.ASCInvalidFieldInCDB},
		"beyond the end":          {writeAtomicCDB(0, testBlocks-8, 0, 16), sense.ASCLBAOutOfRange},
		"far beyond the end":      {writeAtomicCDB(0, 1<<63, 0, 65535), sense.ASCLBAOutOfRange},
		"empty, beyond the end":   {writeAtomicCDB(0, testBlocks+8, 0, 0), sense.ASCLBAOutOfRange},
	} {
		t.Run(name, func(t *testing.T) {
			blocks := binary.BigEndian.Uint16(tt.cdb[12:])
			f.do(tt.cdb, make([]byte, int(blocks)*512)).wantSense(t, sense.KeyIllegalRequest, tt.want)
		})
	}
	// Nothing is written of a command whose data is not all there.
	f.do(writeAtomicCDB(0, 8, 0, 16), make([]byte, 4096)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
	if !bytes.Equal(f.vol.data[4096:][:4096], data[:4096]) {
		t.Error("a part of the data was written")
	}
}

func TestConditionalCommands_NotSupported(t *testing.T) {
	f := newFixture(t, func(c *LUConfig) { c.Volume = plainVolume{c.Volume} })
	for _, cdb := range [][]byte{cdb16(opORWrite, 0, 0, 1), writeAtomicCDB(0, 0, 0, 8), compareAndWriteCDB(0, 0, 1)} {
		f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
		wantHex(t, f.good(rsocCDB(1, cdb[0], 0, 255), nil), "00 01 0000")
	}
}

// TestConditionalCommands_Model runs ORWRITE and WRITE ATOMIC of any
// kind on a volume of the store and compares it with a slice of bytes.
func TestConditionalCommands_Model(t *testing.T) {
	const blocks = 4096
	f, _ := newStoreFixture(t, backstore.Options{}, blocks*512)
	rapid.Check(t, func(rt *rapid.T) {
		f.good(blockErase, nil)
		model := make([]byte, blocks*512)
		data := func(n int) []byte {
			return bytes.Repeat([]byte{rapid.Byte().Draw(rt, "fill"), rapid.Byte().Draw(rt, "fill")}, n*256)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				lba := rapid.IntRange(0, blocks-1).Draw(rt, "lba")
				n := min(rapid.IntRange(1, 1500).Draw(rt, "blocks"), blocks-lba)
				if got := f.good(cdb16(0x88, 0, uint64(lba), uint32(n)), nil); !bytes.Equal(got, model[lba*512:][:n*512]) {
					rt.Fatalf("LBA %d, %d blocks differ", lba, n)
				}
			},
			"ORWRITE": func(rt *rapid.T) {
				lba := rapid.IntRange(0, blocks).Draw(rt, "lba")
				n := min(rapid.IntRange(0, 2500).Draw(rt, "blocks"), blocks-lba)
				bits := data(n)
				f.good(cdb16(opORWrite, 0, uint64(lba), uint32(n)), bits)
				for i, b := range bits {
					model[lba*512+i] |= b
				}
			},
			"WRITE ATOMIC": func(rt *rapid.T) {
				lba := rapid.IntRange(0, blocks/8).Draw(rt, "lba / 8") * 8
				n := min(rapid.IntRange(0, 256).Draw(rt, "blocks / 8")*8, blocks-lba)
				p := data(n)
				f.good(writeAtomicCDB(0, uint64(lba), 0, uint16(n)), p)
				copy(model[lba*512:], p)
			},
			"UNMAP": func(rt *rapid.T) {
				lba := rapid.IntRange(0, blocks).Draw(rt, "lba")
				n := min(rapid.IntRange(0, 100).Draw(rt, "blocks"), blocks-lba)
				list := unmapList([2]uint64{uint64(lba), uint64(n)})
				f.good(unmapCDB(uint16(len(list))), list)
				clear(model[lba*512:][:n*512])
			},
		})
	})
}

// ORWRITEs of many initiators lose no bit of each other.
func TestORWrite_Concurrent(t *testing.T) {
	f, _ := newStoreFixture(t, backstore.Options{}, 1<<20)
	done := make(chan result)
	for i := range 8 {
		n := f.attach(string(rune('a'+i)) + ".example")
		go func() {
			var last result
			for lba := range 32 {
				last = f.run(request{nexus: n, cdb: cdb16(opORWrite, 0, uint64(lba), 1), out: bytes.Repeat([]byte{1 << i}, 512), expectedOut: -1})
			}
			done <- last
		}()
	}
	for range 8 {
		(<-done).wantStatus(t, StatusGood)
	}
	if got := f.good(cdb16(0x88, 0, 0, 32), nil); !bytes.Equal(got, bytes.Repeat([]byte{0xFF}, 32*512)) {
		t.Error("bits are missing")
	}
}
