package scsi

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"odx/target/scsi/sense"
)

// TestMedium_Model runs random block commands and compares the unit
// with a slice of bytes after each.
func TestMedium_Model(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		blockLength := rapid.SampledFrom([]int{512, 4096}).Draw(rt, "block length")
		const blocks = 64
		f := newFixture(t, func(c *LUConfig) {
			c.Volume, c.LogicalBlockLength = newMemVolume(blocks*blockLength), blockLength
			c.Thin = rapid.Bool().Draw(rt, "thin")
		})
		m := &mediumModel{f: f, blockLength: blockLength, bytes: make([]byte, blocks*blockLength)}
		actions := map[string]func(*rapid.T){
			"": m.check, "write": m.write, "write same": m.writeSame, "verify": m.verify, "compare and write": m.compareAndWrite,
		}
		if f.lu.config.Thin {
			actions["unmap"] = m.unmap
		}
		rt.Repeat(actions)
	})
}

// mediumModel is what the medium should hold.
type mediumModel struct {
	f           *fixture
	blockLength int
	bytes       []byte
}

// area draws a range of blocks, at least min of them.
func (m *mediumModel) area(rt *rapid.T, min int) (lba, blocks int) {
	total := len(m.bytes) / m.blockLength
	blocks = rapid.IntRange(min, 12).Draw(rt, "blocks")
	return rapid.IntRange(0, total-blocks).Draw(rt, "lba"), blocks
}

func (m *mediumModel) slice(lba, blocks int) []byte {
	return m.bytes[lba*m.blockLength:][:blocks*m.blockLength]
}

// data draws whole blocks that are often zero and often the same.
func (m *mediumModel) data(rt *rapid.T, blocks int) []byte {
	var p []byte
	for range blocks {
		p = append(p, bytes.Repeat([]byte{rapid.SampledFrom([]byte{0, 0, 1, 0xFF}).Draw(rt, "fill")}, m.blockLength)...)
	}
	return p
}

func (m *mediumModel) check(rt *rapid.T) {
	lba, blocks := m.area(rt, 1)
	if got := m.f.good(cdb16(0x88, 0, uint64(lba), uint32(blocks)), nil); !bytes.Equal(got, m.slice(lba, blocks)) {
		rt.Fatalf("READ(16) of LBA %d, %d blocks differs", lba, blocks)
	}
	if whole := m.f.lu.Volume().(*memVolume).data; !bytes.Equal(whole, m.bytes) {
		rt.Fatal("a block that was not addressed changed")
	}
}

func (m *mediumModel) write(rt *rapid.T) {
	lba, blocks := m.area(rt, 1)
	data := m.data(rt, blocks)
	cdb := rapid.SampledFrom([][]byte{
		cdb6(0x0A, uint32(lba), byte(blocks)), cdb10(0x2A, 0, uint32(lba), uint16(blocks)),
		cdb12(0xAA, 0x08, uint32(lba), uint32(blocks)), cdb16(0x8E, 0x02, uint64(lba), uint32(blocks)),
	}).Draw(rt, "cdb")
	m.f.good(cdb, data)
	copy(m.slice(lba, blocks), data)
}

func (m *mediumModel) writeSame(rt *rapid.T) {
	lba, blocks := m.area(rt, 1)
	block := m.data(rt, 1)
	flags := byte(0)
	if m.f.lu.config.Thin && rapid.Bool().Draw(rt, "unmap") {
		flags |= writeSameUnmap
	}
	out := block
	if rapid.Bool().Draw(rt, "ndob") {
		flags |= writeSameNDOB
		out, block = nil, make([]byte, m.blockLength)
	}
	m.f.good(cdb16(0x93, flags, uint64(lba), uint32(blocks)), out)
	copy(m.slice(lba, blocks), bytes.Repeat(block, blocks))
}

func (m *mediumModel) unmap(rt *rapid.T) {
	var ranges [][2]uint64
	for range rapid.IntRange(0, 3).Draw(rt, "descriptors") {
		lba, blocks := m.area(rt, 0)
		ranges = append(ranges, [2]uint64{uint64(lba), uint64(blocks)})
		clear(m.slice(lba, blocks))
	}
	list := unmapList(ranges...)
	m.f.good(unmapCDB(uint16(len(list))), list)
}

func (m *mediumModel) verify(rt *rapid.T) {
	lba, blocks := m.area(rt, 1)
	data := bytes.Clone(m.slice(lba, blocks))
	cdb := cdb16(0x8F, compareAll, uint64(lba), uint32(blocks))
	m.f.good(cdb, data)
	data[rapid.IntRange(0, len(data)-1).Draw(rt, "wrong byte")] ^= 0x10
	m.f.do(cdb, data).wantSense(m.f.t, sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
}

func (m *mediumModel) compareAndWrite(rt *rapid.T) {
	lba, blocks := m.area(rt, 1)
	compare, data := m.data(rt, blocks), m.data(rt, blocks)
	if rapid.Bool().Draw(rt, "the same") {
		compare = bytes.Clone(m.slice(lba, blocks))
	}
	r := m.f.do(compareAndWriteCDB(0, uint64(lba), byte(blocks)), append(bytes.Clone(compare), data...))
	if bytes.Equal(compare, m.slice(lba, blocks)) {
		r.wantStatus(m.f.t, 0)
		copy(m.slice(lba, blocks), data)
		return
	}
	r.wantSense(m.f.t, sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
}
