package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

// unmapHeader and unmapDescriptor are the lengths of the parts of the UNMAP
// parameter list (SBC-3 5.28.2).
const (
	unmapHeader     = 8
	unmapDescriptor = 16
)

// prepareUnmap checks the CDB of UNMAP.
func prepareUnmap(t *Task) error {
	cdb := t.CDB()
	if cdb[1]&0x01 != 0 { // ANCHOR: ANC_SUP is zero
		return sense.InvalidFieldInCDB(1, 0)
	}
	t.Wanted = uint32(binary.BigEndian.Uint16(cdb[7:]))
	return nil
}

func executeUnmap(ctx context.Context, t *Task) error {
	lu := t.LU
	descriptors, err := lu.parseUnmap(t.DataOut()[:t.Wanted])
	if err != nil {
		return err
	}
	for ; len(descriptors) > 0; descriptors = descriptors[unmapDescriptor:] {
		lba := binary.BigEndian.Uint64(descriptors)
		blocks := uint64(binary.BigEndian.Uint32(descriptors[8:]))
		if blocks == 0 {
			continue
		}
		if err := lu.Volume().Unmap(ctx, int64(lba<<lu.blockShift), int64(blocks<<lu.blockShift)); err != nil {
			return err
		}
		t.bytes += blocks << lu.blockShift
	}
	if lu.WriteThrough() {
		return lu.Volume().Flush(ctx)
	}
	return nil
}

// parseUnmap checks a whole UNMAP parameter list, so that an invalid list unmaps
// nothing, and returns its block descriptors.
func (lu *LogicalUnit) parseUnmap(list []byte) ([]byte, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) < unmapHeader {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	dataLength := int(binary.BigEndian.Uint16(list))
	length := int(binary.BigEndian.Uint16(list[2:]))
	if dataLength+2 > len(list) || length+unmapHeader > len(list) {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	if length > 0 && dataLength+2 < length+unmapHeader {
		return nil, sense.InvalidFieldInParameterList(0, 7)
	}
	// An incomplete descriptor at the end is ignored (SBC-3 5.28.2).
	count := length / unmapDescriptor
	if count > maximumUnmapDescriptors {
		return nil, sense.InvalidFieldInParameterList(2, 7)
	}
	descriptors := list[unmapHeader : unmapHeader+count*unmapDescriptor]
	var total uint64
	for at := 0; at < len(descriptors); at += unmapDescriptor {
		lba := binary.BigEndian.Uint64(descriptors[at:])
		blocks := uint64(binary.BigEndian.Uint32(descriptors[at+8:]))
		if err := lu.checkRange(lba, blocks); err != nil {
			return nil, err
		}
		if total += blocks; total > maximumUnmapBlocks {
			return nil, sense.InvalidFieldInParameterList(unmapHeader+at+8, 7)
		}
	}
	return descriptors, nil
}
