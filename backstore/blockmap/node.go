package blockmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore/extent"
	"odx/backstore/pages"
)

const (
	// Fanout is the number of slots of a node.
	Fanout = 512
	// fanoutShift: a block number is split into digits of this many bits.
	fanoutShift = 9
	// MaxLevel is the highest level a root can have: 512^5 blocks, 128 PiB.
	MaxLevel = 4
)

// node is a page of the map. At level 0 a slot is an extent.Slot, above it the
// number of a child node; 0 is a hole of the whole span.
//
// A node with one reference belongs to one address space and is changed in
// place under that address space's lock; a node with more is immutable. So a
// reader that holds the lock of its address space (shared) reads any node it
// reaches without locking the node.
type node struct {
	pages.Header
	level   uint8
	deleted bool
	slots   [Fanout]extent.Slot
}

// nodeBytes is the approximate memory of one cached node.
const nodeBytes = Fanout*8 + 128

// Kinds of runs in a stored node, and their fields.
const (
	runHoles     = 0 // count
	runAscending = 1 // count, first value; each value is one more than the last
	runConstant  = 2 // count, value
)

// Encode returns the level (a byte) and the slots as runs: a uvarint
// count<<2|kind, then for values the zigzag difference to the last run's end.
func (n *node) Encode() []byte {
	if n.deleted {
		return nil
	}
	var buf [4096]byte // nodes whose slots are far apart need more
	b := append(buf[:0], n.level)
	var last uint64
	for i := 0; i < Fanout; {
		count, kind := n.run(i)
		b = binary.AppendUvarint(b, uint64(count)<<2|kind)
		if kind != runHoles {
			b = binary.AppendVarint(b, int64(uint64(n.slots[i])-last))
			last = uint64(n.slots[i+count-1])
		}
		i += count
	}
	return bytes.Clone(b)
}

// run returns the length and kind of the run of slots that starts at i.
func (n *node) run(i int) (int, uint64) {
	step, kind := extent.Slot(0), uint64(runConstant)
	switch {
	case n.slots[i] == 0:
		kind = runHoles
	case i+1 < Fanout && n.slots[i+1] == n.slots[i]:
	default:
		step, kind = 1, runAscending
	}
	count := 1
	for i+count < Fanout && n.slots[i+count] == n.slots[i+count-1]+step {
		count++
	}
	return count, kind
}

var errShortNode = errors.New("map node: truncated")

func decodeNode(b []byte) (*node, error) {
	if len(b) == 0 || b[0] > MaxLevel {
		return nil, errShortNode
	}
	n := &node{level: b[0]}
	b = b[1:]
	var last uint64
	i := 0
	for i < Fanout {
		head, w := binary.Uvarint(b)
		if w <= 0 {
			return nil, errShortNode
		}
		b = b[w:]
		count, kind := head>>2, head&3
		if count == 0 || count > uint64(Fanout-i) || kind > runConstant {
			return nil, fmt.Errorf("map node: run of %d slots of kind %d at slot %d", count, kind, i)
		}
		if kind == runHoles {
			i += int(count)
			continue
		}
		diff, w := binary.Varint(b)
		if w <= 0 {
			return nil, errShortNode
		}
		b = b[w:]
		value, step := last+uint64(diff), uint64(0)
		if kind == runAscending {
			step = 1
		}
		for k := range count {
			n.slots[i+int(k)] = extent.Slot(value + k*step)
		}
		i += int(count)
		last = uint64(n.slots[i-1])
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("map node: %d trailing bytes", len(b))
	}
	return n, nil
}

func (n *node) empty() bool { return n.slots == [Fanout]extent.Slot{} }

// span returns the number of blocks that a node of the level maps.
func span(level uint8) uint64 { return 1 << (fanoutShift * (uint(level) + 1)) }

// index returns the slot of a node at the level that maps the block.
func index(block uint64, level uint8) int {
	return int(block>>(fanoutShift*uint(level))) & (Fanout - 1)
}

// LevelFor returns the lowest level of a root that spans blocks.
func LevelFor(blocks uint64) uint8 {
	level := uint8(0)
	for span(level) < blocks {
		level++
	}
	return level
}
