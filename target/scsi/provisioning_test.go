package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

func unmapCDB(length uint16) []byte { return cdb10(0x42, 0, 0, length) }

// unmapList builds an UNMAP parameter list of (LBA, blocks) pairs.
func unmapList(ranges ...[2]uint64) []byte {
	p := make([]byte, 8+16*len(ranges))
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-8))
	for i, r := range ranges {
		binary.BigEndian.PutUint64(p[8+16*i:], r[0])
		binary.BigEndian.PutUint32(p[16+16*i:], uint32(r[1]))
	}
	return p
}

func (f *fixture) unmap(list []byte) result {
	f.t.Helper()
	return f.do(unmapCDB(uint16(len(list))), list)
}

// fill makes the whole volume 0xFF.
func (f *fixture) fill() {
	for i := range f.vol.data {
		f.vol.data[i] = 0xFF
	}
}

// wantZeros checks that exactly these blocks of a filled volume are zero.
func (f *fixture) wantZeros(t *testing.T, ranges ...[2]uint64) {
	t.Helper()
	want := bytes.Repeat([]byte{0xFF}, len(f.vol.data))
	for _, r := range ranges {
		clear(want[r[0]*512 : (r[0]+r[1])*512])
	}
	for b := 0; b < testBlocks; b++ {
		if !bytes.Equal(f.vol.data[b*512:][:512], want[b*512:][:512]) {
			t.Fatalf("block %d is not what it should be", b)
		}
	}
}

func TestUnmap(t *testing.T) {
	f := newFixture(t)
	f.fill()
	f.unmap(nil).wantStatus(t, StatusGood)
	f.unmap(unmapList()).wantStatus(t, StatusGood)
	f.unmap(unmapList([2]uint64{testBlocks, 0})).wantStatus(t, StatusGood)
	f.wantZeros(t)
	f.unmap(unmapList([2]uint64{1, 3}, [2]uint64{testBlocks - 1, 1}, [2]uint64{9, 0})).wantStatus(t, StatusGood)
	f.wantZeros(t, [2]uint64{1, 3}, [2]uint64{testBlocks - 1, 1})
}

func TestUnmap_IncompleteDescriptor(t *testing.T) {
	f := newFixture(t)
	f.fill()
	list := unmapList([2]uint64{1, 3}, [2]uint64{100, 3})
	list = list[:len(list)-1]
	binary.BigEndian.PutUint16(list, uint16(len(list)-2))
	binary.BigEndian.PutUint16(list[2:], uint16(len(list)-8))
	f.unmap(list).wantStatus(t, StatusGood)
	f.wantZeros(t, [2]uint64{1, 3})
}

func TestUnmap_Refused(t *testing.T) {
	edit := func(list []byte, change func([]byte)) []byte { change(list); return list }
	many := make([][2]uint64, maximumUnmapDescriptors+1)
	good := [2]uint64{1, 3}
	tests := []struct {
		name string
		list []byte
		want sense.ASC
	}{
		{"header cut", unmapList(good)[:7], sense.ASCParameterListLengthError},
		{"descriptors cut", unmapList(good)[:20], sense.ASCParameterListLengthError},
		{"data length too long", edit(unmapList(good), func(p []byte) { p[1]++ }), sense.ASCParameterListLengthError},
		{"descriptor length too long", edit(unmapList(good), func(p []byte) { p[3]++ }), sense.ASCParameterListLengthError},
		{"data length too short", edit(unmapList(good), func(p []byte) { p[1]-- }), sense.ASCInvalidFieldInParameterList},
		{"second range past the end", unmapList(good, [2]uint64{testBlocks - 1, 2}), sense.ASCLBAOutOfRange},
		{"LBA that overflows", unmapList(good, [2]uint64{1<<64 - 1, 2}), sense.ASCLBAOutOfRange},
		{"too many descriptors", unmapList(append(many, good)...), sense.ASCInvalidFieldInParameterList},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.fill()
			f.unmap(tt.list).wantSense(t, sense.KeyIllegalRequest, tt.want)
			f.wantZeros(t)
		})
	}
	f := newFixture(t)
	cdb := unmapCDB(24)
	cdb[1] = 0x01 // ANCHOR
	f.do(cdb, unmapList(good)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
}

func TestUnmap_Bound(t *testing.T) {
	f := newFixture(t, func(c *LUConfig) { c.Volume = hugeVolume{c.Volume} })
	f.unmap(unmapList([2]uint64{0, maximumUnmapBlocks})).wantStatus(t, StatusGood)
	r := f.unmap(unmapList([2]uint64{0, maximumUnmapBlocks}, [2]uint64{0, 1}))
	r.wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
	if !bytes.Equal(r.sense[15:18], []byte{0x8F, 0, 32}) {
		t.Errorf("field pointer % x, want the length of the second descriptor", r.sense[15:18])
	}
}

// hugeVolume pretends to 64 TiB and does nothing when asked to unmap.
type hugeVolume struct{ blockdev.Volume }

func (hugeVolume) Size() int64 { return 64 << 40 }

func (hugeVolume) Unmap(context.Context, int64, int64) error { return nil }

func TestUnmap_NotThin(t *testing.T) {
	f := newFixture(t, func(c *LUConfig) { c.Thin = false })
	f.fill()
	f.unmap(unmapList([2]uint64{0, 1})).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
	f.do(cdb16(0x93, writeSameUnmap, 0, 1), make([]byte, 512)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	f.good(cdb16(0x93, 0, 5, 4000), make([]byte, 512)) // zeros, written
	f.good(cdb16(0x93, writeSameNDOB, 3, 2), nil)
	f.wantZeros(t, [2]uint64{3, 4002})
}

func TestWriteSame(t *testing.T) {
	block := pattern(512, 7)
	zero := make([]byte, 512)
	tests := []struct {
		name  string
		cdb   []byte
		out   []byte
		lba   int
		count int
		want  []byte
	}{
		{"(10) data", cdb10(0x41, 0, 3, 5), block, 3, 5, block},
		{"(16) data, more than one chunk", cdb16(0x93, 0, 8, writeSameChunk/512+1), block, 8, writeSameChunk/512 + 1, block},
		{"(10) zeros", cdb10(0x41, 0, 3, 5), zero, 3, 5, zero},
		{"(10) UNMAP, zeros", cdb10(0x41, writeSameUnmap, 3, 5), zero, 3, 5, zero},
		{"(10) UNMAP, data: must hold the data", cdb10(0x41, writeSameUnmap, 3, 5), block, 3, 5, block},
		{"(16) UNMAP, no data", cdb16(0x93, writeSameUnmap|writeSameNDOB, 3, 5), nil, 3, 5, zero},
		{"(16) no data", cdb16(0x93, writeSameNDOB, 3, 5), nil, 3, 5, zero},
		{"(10) at the end", cdb10(0x41, 0, testBlocks-9, 9), block, testBlocks - 9, 9, block},
		{"(16) the whole unit", cdb16(0x93, 0, 0, testBlocks), block, 0, testBlocks, block},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.fill()
			f.good(tt.cdb, tt.out)
			want := bytes.Repeat([]byte{0xFF}, len(f.vol.data))
			copy(want[tt.lba*512:], bytes.Repeat(tt.want, tt.count))
			if !bytes.Equal(f.vol.data, want) {
				t.Error("volume data differs")
			}
		})
	}
}

func TestWriteSame_Refused(t *testing.T) {
	block := pattern(512, 7)
	const maxBlocks = maximumWriteSame / 512
	tests := []struct {
		name string
		cdb  []byte
		out  []byte
		want sense.ASC
	}{
		{"ANCHOR", cdb16(0x93, writeSameAnchor, 0, 1), block, sense.ASCInvalidFieldInCDB},
		{"ANCHOR and UNMAP", cdb10(0x41, writeSameAnchor|writeSameUnmap, 0, 1), block, sense.ASCInvalidFieldInCDB},
		{"LBDATA", cdb10(0x41, 0x02, 0, 1), block, sense.ASCInvalidFieldInCDB},
		{"PBDATA", cdb16(0x93, 0x04, 0, 1), block, sense.ASCInvalidFieldInCDB},
		{"NDOB in the 10-byte form", cdb10(0x41, 0x01, 0, 1), nil, sense.ASCInvalidFieldInCDB},
		{"past the end", cdb16(0x93, 0, 64<<31, 1), block, sense.ASCLBAOutOfRange},
		{"LBA that overflows", cdb16(0x93, 0, 1<<64-1, 2), block, sense.ASCLBAOutOfRange},
		{"too long", cdb16(0x93, 0, 0, maxBlocks+1), block, sense.ASCInvalidFieldInCDB},
		{"(10) no blocks", cdb10(0x41, 0, 0, 0), block, sense.ASCInvalidFieldInCDB},
		{"(16) no blocks", cdb16(0x93, writeSameUnmap, 0, 0), block, sense.ASCInvalidFieldInCDB},
		{"half a block", cdb16(0x93, 0, 0, 1), block[:256], sense.ASCInvalidFieldInCommandIU},
		{"no data", cdb16(0x93, 0, 0, 1), nil, sense.ASCInvalidFieldInCommandIU},
		{"two blocks of data", cdb10(0x41, 0, 0, 1), append(block, block...), sense.ASCInvalidFieldInCommandIU},
		{"data with NDOB", cdb16(0x93, writeSameNDOB, 0, 1), block, sense.ASCInvalidFieldInCommandIU},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, func(c *LUConfig) { c.Volume = hugeVolume{c.Volume} })
			f.fill()
			f.do(tt.cdb, tt.out).wantSense(t, sense.KeyIllegalRequest, tt.want)
			f.wantZeros(t)
		})
	}
}
