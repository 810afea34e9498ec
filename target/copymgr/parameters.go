package copymgr

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"odx/blockdev"
	"odx/target/scsi/sense"
	"odx/tokens"
)

// Layout of the parameter lists (SBC-3 5.7, 5.46).
const (
	populateHeaderLength   = 16
	writeUsingHeaderLength = 536
	rangeDescriptorLength  = 16
	// maxParameterListLength is the maximum length with a 16-bit data length field.
	maxParameterListLength = 2 + 0xFFFF
)

// blockRange is a block device range descriptor.
type blockRange struct {
	lba    uint64
	blocks uint32
	// offset is the offset of the descriptor in the parameter list.
	offset int
}

// populateList is a decoded POPULATE TOKEN parameter list.
type populateList struct {
	immediate         bool
	rtv               bool // ROD TYPE is valid
	inactivityTimeout uint32
	rodType           tokens.RODType
	ranges            []blockRange
}

// writeUsingList is a decoded WRITE USING TOKEN parameter list.
type writeUsingList struct {
	immediate     bool
	deleteToken   bool
	offsetIntoROD uint64 // in blocks of the destination
	token         *tokens.Token
	ranges        []blockRange
}

// parsePopulate decodes the parameter list of POPULATE TOKEN.
func parsePopulate(p []byte, maxRanges int) (*populateList, error) {
	if len(p) < populateHeaderLength {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	be := binary.BigEndian
	l := &populateList{
		immediate:         p[2]&0x01 != 0,
		rtv:               p[2]&0x02 != 0,
		inactivityTimeout: be.Uint32(p[4:]),
		rodType:           tokens.RODType(be.Uint32(p[8:])),
	}
	rangesLength := int(be.Uint16(p[14:]))
	if int(be.Uint16(p))+2 < populateHeaderLength+max(rangesLength, rangeDescriptorLength) {
		return nil, sense.InvalidFieldInParameterList(0, sense.WholeField)
	}
	var err error
	l.ranges, err = parseRanges(p, populateHeaderLength, rangesLength, maxRanges)
	return l, err
}

// parseWriteUsing decodes the parameter list of WRITE USING TOKEN.
func parseWriteUsing(p []byte, maxRanges int) (*writeUsingList, error) {
	if len(p) < writeUsingHeaderLength {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	be := binary.BigEndian
	token := tokens.Token(p[16 : 16+tokens.TokenLength]) // a copy: p belongs to the command
	l := &writeUsingList{
		immediate:     p[2]&0x01 != 0,
		deleteToken:   p[2]&0x02 != 0,
		offsetIntoROD: be.Uint64(p[8:]),
		token:         &token,
	}
	rangesLength := int(be.Uint16(p[534:]))
	// Padding may follow the descriptors, as in POPULATE TOKEN.
	if rangesLength >= rangeDescriptorLength && int(be.Uint16(p))+2 < writeUsingHeaderLength+rangesLength {
		return nil, sense.InvalidFieldInParameterList(0, sense.WholeField)
	}
	var err error
	l.ranges, err = parseRanges(p, writeUsingHeaderLength, rangesLength, maxRanges)
	return l, err
}

// parseRanges decodes the block device range descriptors from offset on; BLOCK DEVICE
// RANGE DESCRIPTOR LENGTH precedes them. A descriptor that is truncated by the list or
// by its length is ignored, as the standard requires.
func parseRanges(p []byte, offset, length, maxRanges int) ([]blockRange, error) {
	if length < rangeDescriptorLength {
		return nil, sense.InvalidFieldInParameterList(offset-2, sense.WholeField)
	}
	n := min(length, len(p)-offset) / rangeDescriptorLength
	if n > maxRanges {
		return nil, sense.New(sense.KeyIllegalRequest, ascTooManySegmentDescriptors)
	}
	ranges := make([]blockRange, n)
	for i := range ranges {
		at := offset + i*rangeDescriptorLength
		ranges[i] = blockRange{
			lba:    binary.BigEndian.Uint64(p[at:]),
			blocks: binary.BigEndian.Uint32(p[at+8:]),
			offset: at,
		}
	}
	return ranges, nil
}

// rangeLimits bounds the ranges of a command, in logical blocks.
type rangeLimits struct {
	capacity uint64 // of the logical unit
	longest  uint32 // one range
	total    uint64 // all together
}

func (u *logicalUnit) rangeLimits() rangeLimits {
	return rangeLimits{u.lu.Blocks(), u.lu.MaximumTransferLength(), u.limits().maxBlocks()}
}

// checkRanges refuses ranges that overlap, exceed a limit alone or together, or exceed
// the logical unit. It returns the sum of their lengths in blocks.
func checkRanges(ranges []blockRange, most rangeLimits) (uint64, error) {
	if at, ok := overlap(ranges); ok {
		return 0, sense.InvalidFieldInParameterList(at, sense.WholeField)
	}
	var total uint64
	for _, r := range ranges {
		// 4095 descriptors of 32 bits each cannot overflow 64 bits.
		if total += uint64(r.blocks); total > most.total || r.blocks > most.longest {
			return 0, sense.InvalidFieldInParameterList(r.offset+8, sense.WholeField)
		}
	}
	for _, r := range ranges {
		if r.lba > most.capacity || uint64(r.blocks) > most.capacity-r.lba {
			return 0, sense.New(sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
		}
	}
	return total, nil
}

// overlap returns the offset of a descriptor that overlaps another.
func overlap(ranges []blockRange) (offset int, found bool) {
	sorted := slices.DeleteFunc(slices.Clone(ranges), func(r blockRange) bool { return r.blocks == 0 })
	slices.SortFunc(sorted, func(a, b blockRange) int { return cmp.Compare(a.lba, b.lba) })
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		if b.lba-a.lba < uint64(a.blocks) {
			return max(a.offset, b.offset), true
		}
	}
	return 0, false
}

// byteRanges converts checked ranges to bytes.
func byteRanges(ranges []blockRange, blockLength int) []blockdev.Range {
	out := make([]blockdev.Range, 0, len(ranges))
	for _, r := range ranges {
		if r.blocks > 0 {
			out = append(out, blockdev.Range{
				Offset: int64(r.lba) * int64(blockLength),
				Length: int64(r.blocks) * int64(blockLength),
			})
		}
	}
	return out
}

// byteOffset returns OFFSET INTO ROD in bytes; ok is false if it exceeds the length of
// any token.
func byteOffset(blocks uint64, blockLength int) (offset int64, ok bool) {
	high, low := bits.Mul64(blocks, uint64(blockLength))
	return int64(low), high == 0 && int64(low) >= 0
}
