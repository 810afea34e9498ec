package sense

import (
	"encoding/binary"
	"fmt"
)

// Format is the layout of sense data, chosen by the D_SENSE bit of the
// Control mode page.
type Format byte

// Sense data formats with their response codes for current errors.
const (
	Fixed      Format = 0x70 // SPC-4 r37 4.5.3
	Descriptor Format = 0x72 // SPC-4 r37 4.5.2
)

// Error ends a command with CHECK CONDITION status and has the sense data to send.
type Error struct {
	Key Key
	ASC ASC
	// Information is the INFORMATION field; the command defines its meaning (an LBA for
	// medium errors, a byte offset for COMPARE AND WRITE).
	Information    uint64
	HasInformation bool
	// CommandSpecific is the COMMAND-SPECIFIC INFORMATION field.
	CommandSpecific    uint64
	HasCommandSpecific bool
	// SenseKeySpecific is sent when its first bit (SKSV) is set.
	SenseKeySpecific [3]byte
	// Forwarded is the status and sense data of a logical unit of a third-party copy,
	// or nil.
	Forwarded *Forwarded
	// Deferred marks the failure of a command whose status was already sent (SPC-4 r37
	// 4.5.7).
	Deferred bool
	// Err is the cause for the log, or nil.
	Err error
}

// Forwarded is the status and the sense data of a logical unit of a third-party copy
// (SPC-4 r37 4.5.2.7, 6.4.4).
type Forwarded struct {
	// Destination: the logical unit was the copy's destination, not its source.
	Destination bool
	Status      byte
	Sense       *Error // nil if the status has none
}

// New returns sense data without further fields.
func New(key Key, asc ASC) *Error {
	return &Error{Key: key, ASC: asc}
}

// WholeField makes a field pointer identify a byte without a bit.
const WholeField = -1

// InvalidFieldInCDB returns ILLEGAL REQUEST / INVALID FIELD IN CDB that points
// to a byte of the CDB and a bit (7..0, the most significant of the field) or
// WholeField.
func InvalidFieldInCDB(byteIndex, bit int) *Error {
	return fieldError(ASCInvalidFieldInCDB, 0xC0, byteIndex, bit)
}

// InvalidFieldInParameterList returns ILLEGAL REQUEST / INVALID FIELD IN
// PARAMETER LIST that points to a byte of the Data-Out buffer and a bit or
// WholeField.
func InvalidFieldInParameterList(byteIndex, bit int) *Error {
	return fieldError(ASCInvalidFieldInParameterList, 0x80, byteIndex, bit)
}

// fieldError builds the field pointer of SPC-4 r37 4.5.2.4.2. flags holds SKSV
// and C/D.
func fieldError(asc ASC, flags byte, byteIndex, bit int) *Error {
	e := New(KeyIllegalRequest, asc)
	if byteIndex > 0xFFFF {
		return e
	}
	if bit != WholeField {
		flags |= 0x08 | byte(bit&7)
	}
	e.SenseKeySpecific[0] = flags
	binary.BigEndian.PutUint16(e.SenseKeySpecific[1:], uint16(byteIndex))
	return e
}

// WithInformation returns a copy of e with its INFORMATION field set.
func (e *Error) WithInformation(v uint64) *Error {
	c := *e
	c.Information, c.HasInformation = v, true
	return &c
}

// Error returns the sense key, the additional sense code and the cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s, ASC/ASCQ %s: %v", e.Key, e.ASC, e.Err)
	}
	return fmt.Sprintf("%s, ASC/ASCQ %s", e.Key, e.ASC)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// AppendSense appends the sense data of e to dst.
func (e *Error) AppendSense(dst []byte, f Format) []byte {
	if f == Descriptor {
		return e.appendDescriptors(dst)
	}
	var b [18]byte
	b[0], b[2], b[7] = e.responseCode(f), byte(e.Key), 10
	// This format has 32 bits for the value: VALID stays zero for a larger one (SPC-4
	// r37 4.5.3).
	if e.HasInformation && e.Information <= 0xFFFFFFFF {
		b[0] |= 0x80
		binary.BigEndian.PutUint32(b[3:], uint32(e.Information))
	}
	if e.HasCommandSpecific && e.CommandSpecific <= 0xFFFFFFFF {
		binary.BigEndian.PutUint32(b[8:], uint32(e.CommandSpecific))
	}
	binary.BigEndian.PutUint16(b[12:], uint16(e.ASC))
	copy(b[15:], e.SenseKeySpecific[:])
	if e.Forwarded == nil {
		return append(dst, b[:]...)
	}
	// The first two bytes of the field are the offsets of the source's and the
	// destination's status and sense data (SPC-4 r37 6.4.4).
	third := append([]byte{e.Forwarded.Status}, e.Forwarded.bytes(f)...)
	b[7] += byte(len(third))
	if e.Forwarded.Destination {
		b[9] = byte(len(b))
	} else {
		b[8] = byte(len(b))
	}
	return append(append(dst, b[:]...), third...)
}

// bytes returns the forwarded sense data.
func (s *Forwarded) bytes(f Format) []byte {
	if s.Sense == nil {
		return nil
	}
	return s.Sense.AppendSense(nil, f)
}

// appendDescriptor appends a forwarded sense data descriptor.
func (s *Forwarded) appendDescriptor(dst []byte) []byte {
	const fromSource, fromDestination = 1, 2
	source, sense := byte(fromSource), s.bytes(Descriptor)
	if s.Destination {
		source = fromDestination
	}
	dst = append(dst, 0x0C, byte(2+len(sense)), source, s.Status)
	return append(dst, sense...)
}

// responseCode returns the response code of the format, plus one for deferred errors.
func (e *Error) responseCode(f Format) byte {
	if e.Deferred {
		return byte(f) + 1
	}
	return byte(f)
}

// appendDescriptors appends descriptor format sense data.
func (e *Error) appendDescriptors(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, e.responseCode(Descriptor), byte(e.Key), byte(e.ASC>>8), byte(e.ASC), 0, 0, 0, 0)
	if e.HasInformation {
		dst = append(dst, 0x00, 0x0A, 0x80, 0)
		dst = binary.BigEndian.AppendUint64(dst, e.Information)
	}
	if e.HasCommandSpecific {
		dst = append(dst, 0x01, 0x0A, 0, 0)
		dst = binary.BigEndian.AppendUint64(dst, e.CommandSpecific)
	}
	if s := e.SenseKeySpecific; s[0]&0x80 != 0 {
		dst = append(dst, 0x02, 0x06, 0, 0, s[0], s[1], s[2], 0)
	}
	if e.Forwarded != nil {
		dst = e.Forwarded.appendDescriptor(dst)
	}
	dst[start+7] = byte(len(dst) - start - 8)
	return dst
}
