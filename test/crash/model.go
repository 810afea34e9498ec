// Package crash kills a target while a real client writes, starts it again and
// compares what is there with what may be there: everything that a SYNCHRONIZE
// CACHE or a FUA write made durable, and of later writes each block either
// wholly or not at all.
package crash

import (
	"encoding/binary"
	"fmt"
	"slices"
)

const blockLength = 512

// version names what a block may hold: the data of the write with that number,
// 0 for the zeros of a new disk.
type version uint32

// model knows, for every block of a disk, the versions it may hold. The first
// is durable; each of the others was written later, and is durable once a
// flush has succeeded.
type model struct {
	blocks [][]version
	last   version
	dirty  []uint64 // blocks with more than one version
}

func newModel(blocks uint64) *model {
	m := &model{blocks: make([][]version, blocks)}
	for i := range m.blocks {
		m.blocks[i] = []version{0}
	}
	return m
}

// write is called before a write is sent, and returns the data for it.
func (m *model) write(lba uint64, blocks int) []byte {
	m.last++
	data := make([]byte, blocks*blockLength)
	for i := range uint64(blocks) {
		m.blocks[lba+i] = append(m.blocks[lba+i], m.last)
		m.dirty = append(m.dirty, lba+i)
		fill(data[i*blockLength:(i+1)*blockLength], m.last, lba+i)
	}
	return data
}

// durable is called after a FUA write of these blocks was acknowledged.
func (m *model) durable(lba uint64, blocks int) {
	for i := range uint64(blocks) {
		v := m.blocks[lba+i]
		m.blocks[lba+i] = v[len(v)-1:]
	}
}

// flushed is called after a flush, begun when no write was outstanding, was
// acknowledged.
func (m *model) flushed() {
	for _, lba := range m.dirty {
		m.durable(lba, 1)
	}
	m.dirty = m.dirty[:0]
}

// check compares data, read from the whole disk after a crash, with the model
// and takes what is there as what is durable from now on.
func (m *model) check(data []byte) error {
	var want [blockLength]byte
	for lba, versions := range m.blocks {
		got := data[lba*blockLength : (lba+1)*blockLength]
		found := slices.IndexFunc(versions, func(v version) bool {
			fill(want[:], v, uint64(lba))
			return string(want[:]) == string(got)
		})
		if found < 0 {
			return fmt.Errorf("block %d holds none of its versions %d, but % x...; version 0 is zeros", lba, versions, got[:16])
		}
		m.blocks[lba] = []version{versions[found]}
	}
	m.dirty = m.dirty[:0]
	return nil
}

// fill makes the data of a block. Every third write repeats the same 4 KiB, so
// that a store that keeps equal data once does so.
func fill(block []byte, v version, lba uint64) {
	if v == 0 {
		clear(block)
		return
	}
	if v%3 == 0 {
		lba %= 8
	}
	x := uint64(v)<<32 ^ lba
	for i := 0; i < len(block); i += 8 {
		// splitmix64
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(block[i:], z^z>>31)
	}
}
