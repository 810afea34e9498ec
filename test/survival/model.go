// This file has the model of a disk: everything that a SYNCHRONIZE CACHE or a FUA write
// made durable is there, and of later writes each block either wholly or not at all.

package survival

import (
	"encoding/binary"
	"fmt"
	"slices"
)

const blockLength = 512

// version names what a block may hold: what the write with that number put at
// that block, which a copy may have brought elsewhere. Write 0 are the zeros
// of a new disk.
type version struct {
	write uint32
	block uint64
}

// model knows, for every block of a disk, the versions it may hold. The first
// is durable; each of the others was written later, and is durable once a
// flush has succeeded.
type model struct {
	blocks [][]version
	last   uint32   // number of the last write
	dirty  []uint64 // blocks with more than one version
	// writeThrough: the write cache is off, and what was answered is durable.
	writeThrough bool
}

func newModel(blocks uint64) *model {
	m := &model{blocks: make([][]version, blocks)}
	for i := range m.blocks {
		m.blocks[i] = []version{{}}
	}
	return m
}

// write is called before a write is sent, and returns the data for it.
func (m *model) write(lba uint64, blocks int) []byte {
	m.last++
	data := make([]byte, blocks*blockLength)
	for i := range uint64(blocks) {
		v := version{m.last, lba + i}
		m.put(lba+i, v)
		v.fill(data[i*blockLength : (i+1)*blockLength])
	}
	return data
}

func (m *model) put(lba uint64, v version) {
	m.blocks[lba] = append(m.blocks[lba], v)
	m.dirty = append(m.dirty, lba)
}

// snapshot is what a token of a range stands for, made while no command is
// outstanding.
func (m *model) snapshot(lba uint64, blocks int) []version {
	s := make([]version, blocks)
	for i := range s {
		v := m.blocks[lba+uint64(i)]
		s[i] = v[len(v)-1]
	}
	return s
}

// copied is called before what a token stands for is written to a range.
func (m *model) copied(lba uint64, s []version) {
	for i, v := range s {
		m.put(lba+uint64(i), v)
	}
}

// unmapped is called before a range is unmapped.
func (m *model) unmapped(lba uint64, blocks int) {
	m.copied(lba, make([]version, blocks))
}

// durable is called after a FUA write of these blocks was acknowledged.
func (m *model) durable(lba uint64, blocks int) {
	for i := range uint64(blocks) {
		v := m.blocks[lba+i]
		m.blocks[lba+i] = v[len(v)-1:]
	}
}

// answered is called when a command was answered and no other is outstanding.
func (m *model) answered() {
	if m.writeThrough {
		m.flushed()
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
			v.fill(want[:])
			return string(want[:]) == string(got)
		})
		if found < 0 {
			return fmt.Errorf("block %d holds none of its versions %d, but % x...; write 0 are zeros", lba, versions, got[:16])
		}
		m.blocks[lba] = []version{versions[found]}
	}
	m.dirty = m.dirty[:0]
	return nil
}

// fill makes the data of a block. Every third write repeats the same 4 KiB, so
// that a store that keeps equal data once does so.
func (v version) fill(block []byte) {
	if v.write == 0 {
		clear(block)
		return
	}
	lba := v.block
	if v.write%3 == 0 {
		lba %= 8
	}
	x := uint64(v.write)<<32 ^ lba
	for i := 0; i < len(block); i += 8 {
		// splitmix64
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(block[i:], z^z>>31)
	}
}
