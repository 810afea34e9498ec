// Package extent keeps the extent table: for each extent its place in the
// segments, its length, the CRC-32C of each of its blocks and its fingerprint,
// and, on pages of their own, how many map slots refer to it.
//
// An extent is immutable data of 1 to Unit blocks that was written together.
// Its ID is never used again after it is freed, so a slot that still reads the
// same still means the same data. Maps name extents by ID only: moving an
// extent changes its row here and no map.
//
// The reference count of an extent is the number of slots, in all map leaves
// together, that point to one of its blocks. It is part of what checkpoints
// store. Pins are not: they keep an extent alive between the moment a writer
// finds it to be a duplicate of its data and the moment the writer's slots
// refer to it.
package extent

import (
	"odx/backstore/segment"
)

// MaxUnit is the largest unit in blocks.
const MaxUnit = 16

// ID names an extent. IDs start at 1.
type ID uint64

// Slot is an entry of a map leaf: which block of which extent stands at that
// place of the address space. The zero Slot is a hole. Consecutive blocks of
// consecutive full extents have consecutive slots, which keeps stored leaves
// short.
type Slot uint64

// Slot returns the slot of a block of the extent in a store whose extents have up
// to unit blocks, a power of two.
func (id ID) Slot(unit, block int) Slot { return Slot(uint64(id)*uint64(unit) + uint64(block)) }

// Fingerprint is the keyed BLAKE3 hash of an extent's data; all zeros when it was
// written with deduplication off.
type Fingerprint [32]byte

// Extent describes one extent.
type Extent struct {
	Addr        segment.Addr
	Blocks      uint8
	Fingerprint Fingerprint
	CRC         [MaxUnit]uint32 // CRC-32C of each block; the first Blocks count
}

// Location is where one block lies. Addr.Block is 0 for a hole: that is a
// segment's header, where no extent can be.
type Location struct {
	Addr segment.Addr
	CRC  uint32
}

// Hole reports whether the block reads as zeros.
func (l Location) Hole() bool { return l.Addr.Block == 0 }
