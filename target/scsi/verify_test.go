package scsi

import (
	"bytes"
	"fmt"
	"testing"

	"odx/target/scsi/sense"
)

const (
	compareNothing = bytchkMedium << 1
	compareAll     = bytchkAll << 1
	compareOne     = bytchkOne << 1
)

func verifyCDBs(flags byte, lba uint64, blocks uint32) [][]byte {
	return [][]byte{
		cdb10(0x2F, flags, uint32(lba), uint16(blocks)), cdb12(0xAF, flags, uint32(lba), blocks), cdb16(0x8F, flags, lba, blocks),
	}
}

func TestVerify(t *testing.T) {
	f := newFixture(t)
	blocks := verifyChunk/512 + 3 // more than one chunk
	data := pattern(blocks*512, 3)
	copy(f.vol.data[2*512:], data)
	same := bytes.Repeat([]byte{0x5A}, 512)
	copy(f.vol.data[1024*512:], bytes.Repeat(same, 8))
	for i := range 3 {
		t.Run(fmt.Sprintf("form %d", i), func(t *testing.T) {
			f.good(verifyCDBs(compareNothing, 2, uint32(blocks))[i], nil)
			f.good(verifyCDBs(compareNothing, 2, 1)[i], make([]byte, 512)) // unrequested data
			f.good(verifyCDBs(0x10|compareAll, 2, uint32(blocks))[i], data)
			f.good(verifyCDBs(compareOne, 1024, 8)[i], same)
			f.good(verifyCDBs(compareAll, 2, 0)[i], nil)

			for _, at := range []int{0, 511, verifyChunk - 1, verifyChunk, len(data) - 1} {
				wrong := bytes.Clone(data)
				wrong[at] ^= 0x80
				f.do(verifyCDBs(compareAll, 2, uint32(blocks))[i], wrong).wantSense(t, sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
			}
			f.do(verifyCDBs(compareOne, 1024, 9)[i], same).wantSense(t, sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
			f.do(verifyCDBs(2<<1, 0, 1)[i], same).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
			f.do(verifyCDBs(compareAll, testBlocks, 1)[i], same).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
			f.do(verifyCDBs(compareAll, 0, 2)[i], same).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
		})
	}
}

func TestWriteAndVerify(t *testing.T) {
	f := newFixture(t)
	for i, code := range []byte{0x2E, 0xAE, 0x8E} {
		data := pattern(3*512, byte(i))
		cdb := [][]byte{cdb10(code, compareAll, 9, 3), cdb12(code, compareNothing, 9, 3), cdb16(code, compareAll, 9, 3)}[i]
		f.good(cdb, data)
		if !bytes.Equal(f.vol.data[9*512:][:len(data)], data) {
			t.Errorf("%02Xh: not written", code)
		}
		cdb[1] = compareOne
		f.do(cdb, data).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
	f.do(cdb10(0x2E, 0, 0, 0), nil).wantStatus(t, StatusGood)
}
