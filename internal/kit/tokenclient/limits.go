package tokenclient

import (
	"encoding/binary"
	"fmt"
)

// Descriptor is a third-party copy descriptor of VPD page 8Fh.
type Descriptor struct {
	Type uint16
	Body []byte // without type and length
}

// ThirdPartyCopyPage reads VPD page 8Fh and takes its framing apart, strictly:
// lengths that do not add up are errors.
func (s *Session) ThirdPartyCopyPage() ([]Descriptor, error) {
	const allocation = 4096
	a, err := s.Command([]byte{0x12, 1, 0x8f, allocation >> 8, allocation & 0xff, 0}, nil, allocation)
	if err != nil {
		return nil, err
	}
	if !a.Good() {
		return nil, fmt.Errorf("VPD page 8Fh: %v", a)
	}
	return parseThirdPartyCopyPage(a.Data)
}

func parseThirdPartyCopyPage(b []byte) ([]Descriptor, error) {
	if len(b) < 4 || b[1] != 0x8f {
		return nil, fmt.Errorf("VPD page 8Fh begins with % x", b[:min(len(b), 4)])
	}
	if n := int(binary.BigEndian.Uint16(b[2:])); n != len(b)-4 {
		return nil, fmt.Errorf("PAGE LENGTH is %d, %d bytes came after it", n, len(b)-4)
	}
	var all []Descriptor
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, fmt.Errorf("%d bytes after the last descriptor", len(b))
		}
		d := Descriptor{Type: binary.BigEndian.Uint16(b)}
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b) || n%4 != 0 {
			return nil, fmt.Errorf("descriptor %04Xh has %d bytes, %d are left", d.Type, n, len(b))
		}
		d.Body, b = b[4:n], b[n:]
		all = append(all, d)
	}
	return all, nil
}

// Limits are what a target accepts in one token command; 0 where it does not
// say (block device ROD limits descriptor, SBC-4 6.6.9.3).
type Limits struct {
	Ranges         uint16 // descriptors in one command
	MaxInactivity  uint32 // seconds
	TransferBlocks uint64 // logical blocks in one command
	OptimalBlocks  uint64
}

// Limits reads them from VPD page 8Fh.
func (s *Session) Limits() (Limits, error) {
	descriptors, err := s.ThirdPartyCopyPage()
	if err != nil {
		return Limits{}, err
	}
	for _, d := range descriptors {
		if d.Type == 0x0000 && len(d.Body) == 32 {
			return Limits{
				Ranges:         binary.BigEndian.Uint16(d.Body[6:]),
				MaxInactivity:  binary.BigEndian.Uint32(d.Body[8:]),
				TransferBlocks: binary.BigEndian.Uint64(d.Body[16:]),
				OptimalBlocks:  binary.BigEndian.Uint64(d.Body[24:]),
			}, nil
		}
	}
	return Limits{}, fmt.Errorf("VPD page 8Fh has no block device ROD limits descriptor")
}
