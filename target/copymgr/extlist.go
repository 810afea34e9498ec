package copymgr

import (
	"encoding/binary"
	"slices"

	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// Layout of the EXTENDED COPY parameter lists (SPC-4 r37 6.4, 6.5).
const (
	lid1HeaderLength = 16
	lid4HeaderLength = 48
	// cscdLength is the length of a CSCD descriptor. In both lists ids count from byte
	// 16 on, so the first one of LID4, whose header has the length of one more, is
	// number 1.
	cscdLength     = 32
	cscdIDsBegin   = 16
	cscdThisLU     = 0xFFFF
	cscdTypeE4     = 0xE4
	cscdTypeHeader = 0xFF

	lid4ListFormat = 0x01
)

// Bounds of an EXTENDED COPY, reported by RECEIVE COPY OPERATING PARAMETERS and VPD
// page 8Fh.
const (
	maxCSCDs                = 64
	maxSegments             = 256
	maxDescriptorListLength = 16 << 10
	// maxInlineData is zero because only segments to stream devices write inline data
	// (SPC-4 r37 6.22, 6.4.6.6); the tokens of ROD CSCD descriptors do not count.
	maxInlineData = 0
	// maxHeldData bounds the held data of one operation.
	maxHeldData = 64 << 10
)

// Segment descriptor types (SPC-4 r37 table 134).
const (
	segmentBlockToBlock       = 0x02
	segmentVerify             = 0x07
	segmentBlockOffsetToBlock = 0x0A
	segmentBlockToBlockHold   = 0x0D
)

// segmentTypes are the supported types with their descriptor lengths, ascending.
var segmentTypes = []struct {
	kind   byte
	length int
}{
	{segmentBlockToBlock, 28}, {segmentVerify, 12}, {segmentBlockOffsetToBlock, 32}, {segmentBlockToBlockHold, 28},
}

// copyList is a decoded EXTENDED COPY parameter list. STR and PRIORITY have no effect
// in this copy manager.
type copyList struct {
	listID     uint32
	identified bool // LIST ID USAGE is not 11b
	immediate  bool
	// generateSense requests sense data with GOOD status.
	generateSense bool
	cscds         []cscd
	firstCSCD     int // id of cscds[0]
	segments      []segment
}

// cscd is an identification CSCD descriptor (SPC-4 r37 6.4.5.6), or a ROD CSCD
// descriptor.
type cscd struct {
	at          int // offset in the parameter list
	deviceType  byte
	designator  scsi.Designator
	rod         *rodCSCD // nil: the descriptor has a designator
	pad         bool
	blockLength int // 0: not specified
}

// segment is a segment descriptor.
type segment struct {
	kind   byte
	number int
	at     int // offset in the parameter list
	// concatenate is CAT; countDestination is DC: count is in blocks of the
	// destination.
	concatenate, countDestination bool
	testReady                     bool // TUR
	source, destination           uint16
	count                         uint32 // blocks, or bytes for 0Ah
	sourceLBA, destinationLBA     uint64
	// Bytes beyond the LBAs, for 0Ah.
	sourceOffset, destinationOffset uint16
}

// listLengths are the lengths in a parameter list header, in bytes.
type listLengths struct {
	header, cscds, segments, inline int
}

// parseLID1 decodes the parameter list of EXTENDED COPY(LID1).
func parseLID1(p []byte) (*copyList, error) {
	if len(p) < lid1HeaderLength {
		return nil, illegal(sense.ASCParameterListLengthError)
	}
	be := binary.BigEndian
	l := &copyList{listID: uint32(p[0]), firstCSCD: 0}
	if err := l.parseUsage(p[1]); err != nil {
		return nil, err
	}
	segments, inline := be.Uint32(p[8:]), be.Uint32(p[12:])
	if segments > maxDescriptorListLength {
		return nil, illegal(sense.ASCParameterListLengthError)
	}
	return l, l.parseDescriptors(p, listLengths{
		lid1HeaderLength, int(be.Uint16(p[2:])), int(segments), int(min(inline, 1<<30)),
	})
}

// parseLID4 decodes the parameter list of EXTENDED COPY(LID4).
func parseLID4(p []byte) (*copyList, error) {
	if len(p) < lid4HeaderLength {
		return nil, illegal(sense.ASCParameterListLengthError)
	}
	be := binary.BigEndian
	switch {
	case p[0] != lid4ListFormat:
		return nil, sense.InvalidFieldInParameterList(0, sense.WholeField)
	case be.Uint16(p[2:]) != cscdLength:
		return nil, sense.InvalidFieldInParameterList(2, sense.WholeField)
	case p[16] != cscdTypeHeader:
		return nil, sense.InvalidFieldInParameterList(16, sense.WholeField)
	}
	const immed, gSense = 0x01, 0x02
	l := &copyList{
		listID: be.Uint32(p[20:]), firstCSCD: 1,
		immediate: p[15]&immed != 0, generateSense: p[15]&gSense != 0,
	}
	if err := l.parseUsage(p[1]); err != nil {
		return nil, err
	}
	if l.immediate && (l.generateSense || !l.identified) {
		// The standard asks for this code although the bits are in the list.
		return nil, illegal(sense.ASCInvalidFieldInCDB)
	}
	return l, l.parseDescriptors(p, listLengths{
		lid4HeaderLength, int(be.Uint16(p[42:])), int(be.Uint16(p[44:])), int(be.Uint16(p[46:])),
	})
}

// parseUsage decodes LIST ID USAGE. Held data is kept both for 10b (may be discarded)
// and 00b. With 11b the list identifier has no meaning.
func (l *copyList) parseUsage(b byte) error {
	const usageReserved, usageNone = 1, 3
	usage := b >> 3 & 3
	if usage == usageReserved {
		return sense.InvalidFieldInParameterList(1, 4)
	}
	if l.identified = usage != usageNone; !l.identified {
		l.listID = 0
	}
	return nil
}

// parseDescriptors decodes the part after the header. It refuses a list that is too
// long before it decodes any descriptor.
func (l *copyList) parseDescriptors(p []byte, n listLengths) error {
	switch {
	case n.cscds+n.segments > maxDescriptorListLength:
		return illegal(sense.ASCParameterListLengthError)
	case n.inline > maxInlineTokens:
		return illegal(ascInlineDataLengthExceeded)
	}
	inline := n.header + n.cscds + n.segments
	if inline+n.inline > len(p) {
		return illegal(sense.ASCParameterListLengthError)
	}
	if err := l.parseCSCDs(p, n.header, n.cscds, p[inline:inline+n.inline]); err != nil {
		return err
	}
	if n.inline > maxInlineData && !slices.ContainsFunc(l.cscds, func(c cscd) bool { return c.rod != nil }) {
		return illegal(ascInlineDataLengthExceeded) // no descriptor could refer to it
	}
	if err := l.parseSegments(p[:n.header+n.cscds+n.segments], n.header+n.cscds); err != nil {
		return err
	}
	for i := range l.segments {
		if s := &l.segments[i]; s.kind == segmentBlockToBlockHold && !l.identified {
			return sense.InvalidFieldInParameterList(s.at, sense.WholeField) // held data could not be retrieved
		}
	}
	return nil
}

func (l *copyList) parseCSCDs(p []byte, at, length int, inline []byte) error {
	if length/cscdLength > maxCSCDs {
		return illegal(ascTooManyTargetDescriptors)
	}
	if length%cscdLength != 0 {
		return illegal(sense.ASCParameterListLengthError)
	}
	for end := at + length; at < end; at += cscdLength {
		c, err := parseCSCD(p[at:at+cscdLength], at, inline)
		if err != nil {
			return err
		}
		l.cscds = append(l.cscds, c)
	}
	return nil
}

// parseCSCD decodes a CSCD descriptor of a supported type. LU ID TYPE and NUL are
// obsolete and ignored.
func parseCSCD(d []byte, at int, inline []byte) (cscd, error) {
	switch d[0] {
	case cscdTypeE4:
		return parseIdentificationCSCD(d, at)
	case cscdTypeROD:
		return parseRODCSCD(d, at, inline)
	}
	se := sense.InvalidFieldInParameterList(at, sense.WholeField)
	se.ASC = ascUnsupportedTargetDescriptor
	return cscd{}, se
}

func parseIdentificationCSCD(d []byte, at int) (cscd, error) {
	const maxDesignator = 20
	n := int(d[7])
	if n > maxDesignator {
		return cscd{}, sense.InvalidFieldInParameterList(at+7, sense.WholeField)
	}
	c := cscd{at: at, deviceType: d[1] & 0x1F, designator: scsi.Designator{
		CodeSet: d[4] & 0x0F, Association: d[5] >> 4 & 3, Type: d[5] & 0x0F,
		ID: append([]byte(nil), d[8:8+n]...),
	}}
	c.parseBlockParameters(d)
	return c, nil
}

// parseBlockParameters decodes the device type specific parameters of block devices
// (SPC-4 r37 6.4.5.3).
func (c *cscd) parseBlockParameters(d []byte) {
	const padBit = 0x04
	p := d[fieldCSCDDeviceParams:]
	c.pad, c.blockLength = p[0]&padBit != 0, int(p[1])<<16|int(p[2])<<8|int(p[3])
}

func (l *copyList) parseSegments(p []byte, at int) error {
	for at < len(p) {
		if len(l.segments) == maxSegments {
			return illegal(ascTooManySegmentDescriptors)
		}
		s, length, err := parseSegment(p, at)
		if err != nil {
			return err
		}
		s.number = len(l.segments)
		l.segments = append(l.segments, s)
		at += length
	}
	return nil
}

// parseSegment decodes the segment descriptor at p[at:], and returns its length.
func parseSegment(p []byte, at int) (segment, int, error) {
	be := binary.BigEndian
	d := p[at:]
	length := 0
	for _, known := range segmentTypes {
		if d[0] == known.kind {
			length = known.length
		}
	}
	switch {
	case length == 0:
		se := sense.InvalidFieldInParameterList(at, sense.WholeField)
		se.ASC = ascUnsupportedSegmentDescriptor
		return segment{}, 0, se
	case len(d) < length:
		return segment{}, 0, illegal(sense.ASCParameterListLengthError)
	case int(be.Uint16(d[2:])) != length-4:
		return segment{}, 0, sense.InvalidFieldInParameterList(at+2, sense.WholeField)
	}
	const cat, dc = 0x01, 0x02
	s := segment{
		kind: d[0], at: at, concatenate: d[1]&cat != 0, countDestination: d[1]&dc != 0,
		source: be.Uint16(d[4:]), destination: be.Uint16(d[6:]),
	}
	switch s.kind {
	case segmentVerify:
		s.testReady = d[8]&0x01 != 0
		return s, length, nil
	case segmentBlockOffsetToBlock:
		s.count = be.Uint32(d[8:])
		s.sourceOffset, s.destinationOffset = be.Uint16(d[28:]), be.Uint16(d[30:])
	default:
		s.count = uint32(be.Uint16(d[10:]))
	}
	s.sourceLBA, s.destinationLBA = be.Uint64(d[12:]), be.Uint64(d[20:])
	return s, length, nil
}
