package scsi

import (
	"context"
	"encoding/binary"
)

// Device-specific parameter of direct access block devices (SBC-3 6.5.1).
const (
	dspWP     = 0x80
	dspDPOFUA = 0x10
)

// executeModeSense6 is MODE SENSE(6) (SPC-4 r37 6.13).
func executeModeSense6(_ context.Context, t *Task) error {
	cdb, lu := t.CDB(), t.LU
	pages, err := lu.modes.Sense(cdb)
	if err != nil {
		return err
	}
	d := []byte{0, 0, t.itl.deviceSpecificParameter(), 0}
	if cdb[1]&modeSenseDBD == 0 {
		d = append(d, lu.shortBlockDescriptor()...)
		d[3] = 8
	}
	d = append(d, pages...)
	d[0] = byte(len(d) - 1)
	t.SetDataIn(d, uint32(cdb[4]))
	return nil
}

// executeModeSense10 is MODE SENSE(10) (SPC-4 r37 6.14).
func executeModeSense10(_ context.Context, t *Task) error {
	cdb, lu := t.CDB(), t.LU
	pages, err := lu.modes.Sense(cdb)
	if err != nil {
		return err
	}
	d := []byte{0, 0, 0, t.itl.deviceSpecificParameter(), 0, 0, 0, 0}
	const llbaa, longLBA = 0x10, 0x01
	switch {
	case cdb[1]&modeSenseDBD != 0:
	case cdb[1]&llbaa != 0:
		d[4], d[7] = longLBA, 16
		d = append(d, lu.longBlockDescriptor()...)
	default:
		d[7] = 8
		d = append(d, lu.shortBlockDescriptor()...)
	}
	d = append(d, pages...)
	binary.BigEndian.PutUint16(d, uint16(len(d)-2))
	t.SetDataIn(d, uint32(binary.BigEndian.Uint16(cdb[7:])))
	return nil
}

const modeSenseDBD = 0x08 // disable block descriptors

// deviceSpecificParameter returns that byte of the mode parameter header.
func (i *itlNexus) deviceSpecificParameter() byte {
	dsp := byte(dspDPOFUA)
	if i.writeProtected() != nil {
		dsp |= dspWP
	}
	return dsp
}

// shortBlockDescriptor returns the short LBA mode parameter block descriptor (SBC-3
// 6.5.2.2).
func (lu *LogicalUnit) shortBlockDescriptor() []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(lu.Blocks(), 0xFFFFFFFF)))
	binary.BigEndian.PutUint32(b[4:], uint32(lu.LogicalBlockLength())) // byte 4 is reserved, the length has 24 bits
	return b
}

// longBlockDescriptor returns the long LBA mode parameter block descriptor (SBC-3
// 6.5.2.3).
func (lu *LogicalUnit) longBlockDescriptor() []byte {
	b := make([]byte, 16)
	binary.BigEndian.PutUint64(b, lu.Blocks())
	binary.BigEndian.PutUint32(b[12:], uint32(lu.LogicalBlockLength()))
	return b
}
