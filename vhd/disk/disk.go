// Package disk implements virtual disks for all formats. A virtual disk is an address
// space divided into payload blocks of equal length. A Table, which a format
// implements, maps blocks to offsets in the Container of the file. Disk is a volume
// over a Table: it reads, writes, unmaps and allocates blocks, reads sectors that a
// differencing disk does not have from the parent, and supports copies by token, since
// payload in the store can be mapped.
package disk

import (
	"context"
	"fmt"
	"time"

	"odx/blockdev"
)

// Container has the bytes of a virtual disk's file. A *backstore.Volume of a file is a
// Container.
type Container interface {
	blockdev.Volume
	// Truncate sets the length in bytes. Added bytes read as zeros.
	Truncate(ctx context.Context, size int64) error
	// Barrier orders writes: after a crash a write after the barrier exists only if all
	// writes before it do.
	Barrier(ctx context.Context) error
}

// Kind is how a disk allocates blocks.
type Kind uint8

// The kinds of virtual disks.
const (
	Fixed        Kind = 1 + iota // all blocks are allocated at creation
	Dynamic                      // a block is allocated when it is first written
	Differencing                 // as Dynamic; absent sectors are the parent's
)

// Format is a file format.
type Format string

// The formats. Raw has no structure: the file is the disk.
const (
	VHD  Format = "vhd"
	VHDX Format = "vhdx"
	Raw  Format = "raw"
)

// GUID is an identifier in the byte order of RFC 9562, in which it is printed.
type GUID [16]byte

// String returns the groups of hexadecimal digits of RFC 9562.
func (g GUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// MarshalText returns String, for JSON.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// Geometry is the lengths of a virtual disk in bytes.
type Geometry struct {
	// Size is the capacity, a multiple of SectorLength.
	Size int64
	// BlockLength is the length of a payload block, a multiple of 4 KiB. The last block
	// may extend past Size.
	BlockLength int64
	// SectorLength is the length of a logical sector, 512 or 4096. A bit of a sector
	// bitmap represents one.
	SectorLength int64
	// PhysicalSectorLength is the reported length of a physical sector, 512 or 4096.
	PhysicalSectorLength int64
}

// Blocks returns the number of payload blocks.
func (g Geometry) Blocks() int64 { return (g.Size + g.BlockLength - 1) / g.BlockLength }

// Spec describes a virtual disk to create. Zero fields except Size have the format's
// default; identifiers default to a random value.
type Spec struct {
	Kind Kind
	Geometry
	// ID identifies the disk to its children, DiskID to a guest. VHD has one identifier
	// for both, ID.
	ID, DiskID GUID
	// Parent is the parent of a differencing disk, otherwise nil.
	Parent *Parent
}

// Parent is a differencing disk's reference to its parent.
type Parent struct {
	// ID is the parent's identifier when the child was created. OtherID, if not zero,
	// is an alternative: while a child is merged into the parent, both the old and the
	// new identifier of the parent are valid.
	ID, OtherID GUID
	// Paths are the candidate paths of the parent, with slashes, the path relative to
	// the child's directory first. Absolute paths are as in the file.
	Paths []string
	// Modified is the time of the parent file's last change; zero if the format does
	// not store it.
	Modified time.Time
}

// Is reports whether the parent may have the identifier.
func (p Parent) Is(id GUID) bool { return id == p.ID || p.OtherID != GUID{} && id == p.OtherID }

// Info describes a virtual disk.
type Info struct {
	Format Format
	Kind   Kind
	Geometry
	ID, DiskID GUID
	// Parent is nil unless Kind is Differencing.
	Parent *Parent
	// Creator is the name of the creating program, as stored in the file.
	Creator string
	// Created is zero if the format does not store it.
	Created time.Time
}

// State is the state of a payload block.
type State uint8

// The states of a payload block.
const (
	Absent  State = iota // reads from the parent, or as zeros without one
	Zero                 // reads as zeros, whatever the parent has
	Full                 // all sectors are in the container
	Partial              // sectors in the bitmap are in the container, the others read as Absent
)

// Block is the state and location of a payload block.
type Block struct {
	State State
	// Offset is the container offset of the first byte, if State is Full or Partial.
	Offset int64
}

// Table is the metadata of an open virtual disk: it maps blocks to the container. Block
// and Present may be called concurrently; any other method must be called alone.
//
// A crash during a change leaves a valid file in which each block has its old or its
// new state.
type Table interface {
	Info() Info
	// Block returns payload block i. It returns an error only if the format's table is
	// not in memory and cannot be read.
	Block(ctx context.Context, i int64) (Block, error)
	// Present returns a bitmap of the sectors [first, first+count) of a Partial block
	// that are in the container.
	Present(ctx context.Context, i, first, count int64) (Bits, error)
	// SetPresent marks the sectors of a Partial block as in the container. If all
	// sectors are, the block may become Full.
	SetPresent(ctx context.Context, i, first, count int64) error
	// Allocate allocates Absent and Zero blocks, which then read as zeros, contiguously
	// in the given order if the format has no structure between blocks. Absent blocks
	// of a differencing disk become Partial, with no sectors; others become Full.
	Allocate(ctx context.Context, blocks []int64) error
	// Complete makes Absent, Partial and Zero blocks Full in one change: all their
	// sectors are in the container. It allocates like Allocate.
	Complete(ctx context.Context, blocks []int64) error
	// Free makes blocks Zero, or Absent if the format has no Zero and the disk no
	// parent, and frees their ranges of the container for reuse. If the format allows
	// neither, the blocks remain allocated and read as zeros.
	Free(ctx context.Context, blocks []int64) error
	// Changing is called before the first change of the payload since the disk was
	// opened. VHDX then changes the identifiers by which children detect the change.
	Changing(ctx context.Context) error
	// Close writes the state of an orderly close to the file. The container remains
	// open.
	Close(ctx context.Context) error
}

// Bits is a bitmap with one bit per sector. The first sector is the lowest bit of the
// first byte.
type Bits []byte

// Get returns bit i.
func (b Bits) Get(i int64) bool { return b[i>>3]&(1<<(i&7)) != 0 }

// Set sets bit i.
func (b Bits) Set(i int64) { b[i>>3] |= 1 << (i & 7) }

// Run returns the value of bit i and the length of the run of equal bits that starts at
// i. n is the number of bits.
func (b Bits) Run(i, n int64) (set bool, length int64) {
	set = b.Get(i)
	var same byte // eight bits with the value
	if set {
		same = 0xFF
	}
	end := i + 1
	for end < n && b.Get(end) == set {
		end++
		for end%8 == 0 && end < n && b[end/8] == same {
			end = min(end+8, n)
		}
	}
	return set, end - i
}
