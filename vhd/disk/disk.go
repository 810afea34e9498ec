// Package disk is what virtual disk formats have in common. A virtual disk is an
// address space cut into payload blocks of equal length; a Table, which a format
// implements, says where each one is in the Container that holds the file. Over a
// Table, Disk is a volume like any other: it reads, writes and unmaps, allocates
// blocks as they are needed, reads from a parent what a differencing disk does not
// have, and lets copies by token through, since payload in the store is mapped and
// never moved.
package disk

import (
	"context"
	"fmt"
	"time"

	"odx/blockdev"
)

// Container is the byte space that the file of a virtual disk is in. A
// *backstore.Volume that is a file is one.
type Container interface {
	blockdev.Volume
	// Truncate sets the length. What is new reads as zeros.
	Truncate(ctx context.Context, size int64) error
	// Barrier makes sure that after a crash nothing that is written after it is
	// there without all that was written before it.
	Barrier(ctx context.Context) error
}

// Kind says how the blocks of a disk come to be.
type Kind uint8

// The kinds of virtual disks.
const (
	Fixed        Kind = 1 + iota // all blocks are there from the start
	Dynamic                      // a block is allocated when it is written
	Differencing                 // as Dynamic; what is not there is in the parent
)

// Format is a file format.
type Format string

// The formats. Raw has no structure: the file is the disk.
const (
	VHD  Format = "vhd"
	VHDX Format = "vhdx"
	Raw  Format = "raw"
)

// GUID is in the byte order of RFC 9562, in which it is printed.
type GUID [16]byte

// String is the usual form in groups of hexadecimal digits.
func (g GUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// MarshalText gives String, for JSON.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// Geometry is the shape of a virtual disk. All lengths are bytes.
type Geometry struct {
	// Size is the capacity, a multiple of SectorLength.
	Size int64
	// BlockLength is the length of a payload block, a multiple of 4 KiB; the last
	// one may reach beyond Size.
	BlockLength int64
	// SectorLength is the length of a logical sector, 512 or 4096: what one bit of
	// a sector bitmap stands for.
	SectorLength int64
	// PhysicalSectorLength is what the disk says of itself, 512 or 4096.
	PhysicalSectorLength int64
}

// Blocks returns the number of payload blocks.
func (g Geometry) Blocks() int64 { return (g.Size + g.BlockLength - 1) / g.BlockLength }

// Spec is what a virtual disk is made as. What is zero, apart from Size, gets the
// format's default, identifiers a new random value.
type Spec struct {
	Kind Kind
	Geometry
	// ID is what children of the disk know it by; DiskID is what a guest sees.
	// VHD has one for both, which is ID.
	ID, DiskID GUID
	// Parent is what a differencing disk is over.
	Parent *Parent
}

// Parent is what a differencing disk says of its parent.
type Parent struct {
	// ID is the parent's at the time at which the child was made. OtherID is another
	// one that it may have instead, if it is not zero: while a child is merged into the
	// parent, its old and its new one are right.
	ID, OtherID GUID
	// Paths are the places where the parent may be, with slashes, the one relative
	// to the directory of the child first. An absolute one is as it stands in the file.
	Paths []string
	// Modified is when the parent's file was changed last; zero where the format
	// does not tell.
	Modified time.Time
}

// Is reports whether the parent may have an identifier.
func (p Parent) Is(id GUID) bool { return id == p.ID || p.OtherID != GUID{} && id == p.OtherID }

// Info describes a virtual disk.
type Info struct {
	Format Format
	Kind   Kind
	Geometry
	ID, DiskID GUID
	// Parent is nil unless Kind is Differencing.
	Parent *Parent
	// Creator is the program that made it, as it calls itself.
	Creator string
	// Created is zero where the format does not tell.
	Created time.Time
}

// State says where the bytes of a payload block are.
type State uint8

// The states of a payload block.
const (
	Absent  State = iota // in the parent; zeros, if there is none
	Zero                 // zeros, whatever the parent has
	Full                 // in the container
	Partial              // sectors by bitmap, in the container or, where not, as in an Absent block
)

// Block is where a payload block is.
type Block struct {
	State State
	// Offset is where its first byte is in the container, if State is Full or
	// Partial.
	Offset int64
}

// Table is the metadata of an open virtual disk: which block is where. Block and
// Present may be called concurrently; every other method excludes all.
//
// A change is made so that a crash at any point leaves a valid file in which the
// block has either its old or its new state.
type Table interface {
	Info() Info
	// Block returns where payload block i is. It fails only where the format's table is
	// not held in memory, and cannot be read.
	Block(ctx context.Context, i int64) (Block, error)
	// Present returns which of the sectors [first, first+count) of a Partial block
	// are in the container.
	Present(ctx context.Context, i, first, count int64) (Bits, error)
	// SetPresent says that those sectors of a Partial block are in the container
	// from now on. When that completes the block, it may become Full.
	SetPresent(ctx context.Context, i, first, count int64) error
	// Allocate gives blocks that are Absent or Zero places that read as zeros, the
	// blocks one behind the other in the order given as far as the format has
	// nothing to put between them. A differencing disk's Absent blocks become
	// Partial, without any sector, others Full.
	Allocate(ctx context.Context, blocks []int64) error
	// Complete makes Absent, Partial and Zero blocks Full in one change: all sectors
	// are in the container. It allocates as Allocate does.
	Complete(ctx context.Context, blocks []int64) error
	// Free makes blocks Zero, or Absent where no parent could show and the format
	// does not know Zero, and gives their places back for reuse. Blocks of a format
	// that cannot say so stay as they are, with places that read as zeros.
	Free(ctx context.Context, blocks []int64) error
	// Changing is called before the first change of the payload since the disk was
	// opened; VHDX changes its identifiers then, by which children notice.
	Changing(ctx context.Context) error
	// Close leaves the file as one that was closed in order. The container stays
	// open.
	Close(ctx context.Context) error
}

// Bits is a bitmap, one bit a sector; the first sector is the lowest bit of the
// first byte.
type Bits []byte

// Get returns bit i.
func (b Bits) Get(i int64) bool { return b[i>>3]&(1<<(i&7)) != 0 }

// Set sets bit i.
func (b Bits) Set(i int64) { b[i>>3] |= 1 << (i & 7) }

// Run returns the value of bit i and how many bits from i to n, the number of all
// bits, have it.
func (b Bits) Run(i, n int64) (set bool, length int64) {
	set = b.Get(i)
	var same byte // eight bits of that value
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
