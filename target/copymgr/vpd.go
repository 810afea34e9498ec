package copymgr

import (
	"encoding/binary"
	"time"

	"odx/blockdev"
	"odx/target/scsi"
	"odx/tokens"
)

// maxRangeDescriptors bounds the ranges of one command. Windows sends at most 64.
const maxRangeDescriptors = 256

// Bytes that one command should move. Windows permits four seconds per command; mapping
// 256 MiB, its maximum, takes a few milliseconds.
const (
	optimalMapped  = 256 << 20
	optimalCopied  = 64 << 20
	maxTokenCopied = 256 << 20

	// maxTokenBlocks is the maximum sum in Windows' class driver, which has 32 bits for
	// the blocks of a command.
	maxTokenBlocks = 1<<32 - 1

	maxSegmentMapped = 1 << 30
	maxSegmentCopied = 256 << 20
)

// copyLimits has the limits of a logical unit in VPD page 8Fh.
type copyLimits struct {
	blockLength       int
	mapped            bool
	maxToken          int64 // bytes that a token may represent
	optimal           int64 // bytes that a command should move
	maxSegment        int64 // bytes that a segment of EXTENDED COPY may move
	maxInactivity     time.Duration
	defaultInactivity time.Duration
}

// newCopyLimits returns the limits of a logical unit whose volume is mapped, or has to
// be copied.
func newCopyLimits(blockLength int, mapped bool, l tokens.Limits) copyLimits {
	c := copyLimits{
		blockLength: blockLength, mapped: mapped, maxToken: l.TokenBytes, optimal: optimalMapped, maxSegment: maxSegmentMapped,
		maxInactivity: l.MaxInactivity, defaultInactivity: l.DefaultInactivity,
	}
	if !mapped {
		c.maxToken, c.optimal, c.maxSegment = min(l.TokenBytes, maxTokenCopied), optimalCopied, maxSegmentCopied
	}
	c.maxToken = min(c.maxToken-c.maxToken%int64(blockLength), maxTokenBlocks*int64(blockLength))
	c.optimal = min(c.optimal, c.maxToken)
	return c
}

// maxBlocks returns MAXIMUM TOKEN TRANSFER SIZE.
func (c *copyLimits) maxBlocks() uint64 { return uint64(c.maxToken) / uint64(c.blockLength) }

// thirdPartyCopyPage returns the descriptors of VPD page 8Fh (SPC-4 r37 7.8.17) in
// ascending order of type. The first must be the Block Device ROD Limits of exactly 20h
// bytes, the only one that Windows evaluates.
func (c *copyLimits) thirdPartyCopyPage(table []scsi.Operation) []byte {
	var p []byte
	p = appendDescriptor(p, 0x0000, c.blockDeviceRODLimits())
	p = appendDescriptor(p, 0x0001, supportedCommands(table))
	p = appendDescriptor(p, 0x0004, parameterData())
	p = appendDescriptor(p, 0x0008, supportedDescriptors())
	p = appendDescriptor(p, 0x000C, supportedCSCDIDs())
	p = appendDescriptor(p, 0x0106, c.rodTokenFeatures())
	p = appendDescriptor(p, 0x0108, c.supportedRODTypes())
	p = appendDescriptor(p, 0x8001, c.generalCopyOperations())
	return appendDescriptor(p, 0xC001, heldData())
}

// appendDescriptor adds a third-party copy descriptor, padded to a multiple of four
// bytes.
func appendDescriptor(p []byte, kind uint16, body []byte) []byte {
	padded := (len(body) + 3) &^ 3
	p = binary.BigEndian.AppendUint16(p, kind)
	p = binary.BigEndian.AppendUint16(p, uint16(padded))
	p = append(p, body...)
	return append(p, make([]byte, padded-len(body))...)
}

// blockDeviceRODLimits returns descriptor 0000h (SBC-3 6.6.6.3). Transfer sizes are in
// logical blocks.
func (c *copyLimits) blockDeviceRODLimits() []byte {
	be := binary.BigEndian
	p := make([]byte, 0x20)
	be.PutUint16(p[6:], maxRangeDescriptors)
	be.PutUint32(p[8:], seconds(c.maxInactivity))
	be.PutUint32(p[12:], seconds(c.defaultInactivity))
	be.PutUint64(p[16:], c.maxBlocks())
	be.PutUint64(p[24:], uint64(c.optimal)/uint64(c.blockLength))
	return p
}

// supportedCommands returns descriptor 0001h: the service actions of Install.
func supportedCommands(table []scsi.Operation) []byte {
	list := []byte{0}
	for _, code := range [...]byte{opThirdPartyCopyOut, opThirdPartyCopyIn} {
		list = append(list, code, 0)
		count := len(list) - 1
		for _, op := range table {
			if op.Usage[0] == code {
				list = append(list, op.Usage[1])
				list[count]++
			}
		}
	}
	list[0] = byte(len(list) - 1)
	return list
}

// parameterData returns descriptor 0004h.
func parameterData() []byte {
	be := binary.BigEndian
	p := make([]byte, 0x1C)
	be.PutUint16(p[4:], maxCSCDs)
	be.PutUint16(p[6:], maxSegments)
	be.PutUint32(p[8:], maxDescriptorListLength)
	be.PutUint32(p[12:], maxInlineData)
	return p
}

// supportedDescriptorTypes lists the segment and CSCD descriptor types, ascending.
func supportedDescriptorTypes() []byte {
	var list []byte
	for _, s := range segmentTypes {
		list = append(list, s.kind)
	}
	return append(list, cscdTypeE4, cscdTypeROD)
}

// supportedDescriptors returns descriptor 0008h.
func supportedDescriptors() []byte {
	list := supportedDescriptorTypes()
	return append([]byte{byte(len(list))}, list...)
}

// supportedCSCDIDs returns descriptor 000Ch: the ids that no CSCD descriptor defines.
func supportedCSCDIDs() []byte {
	return []byte{0, 4, cscdRODProducer >> 8, cscdRODProducer & 0xFF, cscdThisLU >> 8, cscdThisLU & 0xFF}
}

// heldData returns descriptor C001h.
func heldData() []byte {
	p := make([]byte, 0x1C)
	binary.BigEndian.PutUint32(p, maxHeldData)
	return p // granularity: a byte
}

// rodTokenFeatures returns descriptor 0106h with the block ROD device type specific
// features. Transfer sizes are in bytes.
func (c *copyLimits) rodTokenFeatures() []byte {
	be := binary.BigEndian
	p := make([]byte, 44+48)
	// REMOTE TOKENS is zero: only tokens of this copy manager can be used. The token
	// lifetimes apply to tokens with their own lifetime, which only EXTENDED COPY can
	// request.
	be.PutUint32(p[12:], 1)
	be.PutUint32(p[16:], seconds(max(c.maxInactivity, time.Hour)))
	be.PutUint32(p[20:], seconds(c.maxInactivity))
	features := p[44:]
	be.PutUint16(p[42:], uint16(len(features)))
	be.PutUint16(features[2:], uint16(len(features)-4))
	be.PutUint16(features[6:], uint16(max(blockdev.BlockLength/c.blockLength, 1)))
	be.PutUint64(features[8:], uint64(c.maxToken))
	be.PutUint64(features[16:], uint64(c.optimal))
	be.PutUint64(features[24:], uint64(c.optimal)) // to a token, for each range
	be.PutUint64(features[32:], uint64(c.optimal)) // from a token, for each range
	return p
}

// supportedRODTypes returns descriptor 0108h. POPULATE TOKEN creates only point in time
// copies (SBC-3 5.7), and the vendor specific kinds; of a volume outside the store only
// those that hold the data themselves, or no data.
func (c *copyLimits) supportedRODTypes() []byte {
	const tokenIn, tokenOut = 0x02, 0x01
	inStore := byte(tokenIn) // kinds whose data stays in place, in the store
	if c.mapped {
		inStore |= tokenOut
	}
	types := []struct {
		rodType tokens.RODType
		flags   byte
	}{
		{0, 0}, // a ROD CSCD descriptor may refer to a token
		{tokens.RODTypeAccessUponReference, tokenIn},
		{tokens.RODTypePointInTimeDefault, tokenIn | tokenOut},
		{tokens.RODTypePointInTimeChangeVulnerable, inStore},
		{tokens.RODTypePointInTimePersistent, tokenIn | tokenOut},
		{tokens.RODTypePointInTimeAny, tokenOut},
		{tokens.RODTypeBlockDeviceZero, tokenIn},
		{tokens.RODTypeHash, inStore},
		{tokens.RODTypeChecksum, tokenOut},
	}
	const entryLength = 64
	p := make([]byte, 4+entryLength*len(types))
	binary.BigEndian.PutUint16(p[2:], uint16(entryLength*len(types)))
	for i, t := range types {
		entry := p[4+entryLength*i:]
		binary.BigEndian.PutUint32(entry, uint32(t.rodType))
		entry[4] = t.flags
	}
	return p
}

// generalCopyOperations returns descriptor 8001h.
func (c *copyLimits) generalCopyOperations() []byte {
	p := make([]byte, 0x20)
	binary.BigEndian.PutUint32(p, maxRunning)
	binary.BigEndian.PutUint32(p[4:], maxRunning)
	binary.BigEndian.PutUint32(p[8:], uint32(c.maxSegment))
	return p // granularity of segments and inline data: a byte
}

// seconds returns d in whole seconds, limited to the maximum of the field.
func seconds(d time.Duration) uint32 {
	return uint32(min(int64(d/time.Second), 0xFFFFFFFF))
}

// operatingParameters returns the parameter data of RECEIVE COPY OPERATING PARAMETERS
// (SPC-4 r37 6.22), with the values of VPD page 8Fh.
func (c *copyLimits) operatingParameters() []byte {
	be := binary.BigEndian
	list := supportedDescriptorTypes()
	p := make([]byte, 44, 44+len(list))
	be.PutUint32(p, uint32(cap(p)-4))
	p[4] = 0x01 // SNLID: LIST ID USAGE 11b is supported
	be.PutUint16(p[8:], maxCSCDs)
	be.PutUint16(p[10:], maxSegments)
	be.PutUint32(p[12:], maxDescriptorListLength)
	be.PutUint32(p[16:], uint32(c.maxSegment))
	be.PutUint32(p[20:], maxInlineData)
	be.PutUint32(p[24:], maxHeldData)
	be.PutUint16(p[34:], maxRunning) // TOTAL CONCURRENT COPIES
	p[36] = maxRunning               // MAXIMUM CONCURRENT COPIES
	p[43] = byte(len(list))
	return append(p, list...)
}
