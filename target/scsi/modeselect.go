package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
)

// prepareModeSelect6 and prepareModeSelect10 check the CDBs of MODE SELECT
// (SPC-4 r37 6.9, 6.10).
func prepareModeSelect6(t *Task) error {
	if err := checkModeSelect(t.CDB()); err != nil {
		return err
	}
	t.Wanted = uint32(t.CDB()[4])
	return nil
}

func prepareModeSelect10(t *Task) error {
	if err := checkModeSelect(t.CDB()); err != nil {
		return err
	}
	t.Wanted = uint32(binary.BigEndian.Uint16(t.CDB()[7:]))
	return nil
}

func checkModeSelect(cdb []byte) error {
	if cdb[1]&0x10 == 0 { // PF: the parameters of SCSI-1 are not known
		return InvalidFieldInCDB(1, 4)
	}
	if cdb[1]&0x01 != 0 { // SP: nothing can be saved
		return InvalidFieldInCDB(1, 0)
	}
	return nil
}

func executeModeSelect6(ctx context.Context, t *Task) error {
	list := t.DataOut()[:t.Wanted]
	if len(list) == 0 {
		return nil
	}
	if len(list) < 4 {
		return NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	return t.modeSelect(ctx, list, 4, int(list[3]), shortDescriptor)
}

func executeModeSelect10(ctx context.Context, t *Task) error {
	list := t.DataOut()[:t.Wanted]
	if len(list) == 0 {
		return nil
	}
	if len(list) < 8 {
		return NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	form := shortDescriptor
	if list[4]&0x01 != 0 { // LONGLBA
		form = longDescriptor
	}
	return t.modeSelect(ctx, list, 8, int(binary.BigEndian.Uint16(list[6:])), form)
}

// descriptorForm is the length of a mode parameter block descriptor.
type descriptorForm int

const (
	shortDescriptor descriptorForm = 8
	longDescriptor  descriptorForm = 16
)

// modeSelect checks a mode parameter list with a header of headerLength bytes,
// and takes its pages over only when all of it is right.
func (t *Task) modeSelect(ctx context.Context, list []byte, headerLength, descriptorLength int, form descriptorForm) error {
	lu := t.LU
	at := headerLength + descriptorLength
	if at > len(list) {
		return NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	if descriptorLength != 0 {
		if descriptorLength != int(form) {
			return InvalidFieldInParameterList(headerLength-1, WholeField)
		}
		if err := lu.checkBlockDescriptor(list[headerLength:at], headerLength); err != nil {
			return err
		}
	}
	changed, err := lu.modes.selectPages(list, at)
	if err != nil || !changed {
		return err
	}
	lu.establish(ASCModeParametersChanged, t.Nexus)
	if lu.WriteThrough() {
		// What the cache held when it was turned off has to reach the medium too
		// (SBC-3 6.5.5, WCE).
		return lu.volume.Flush(ctx)
	}
	return nil
}

// checkBlockDescriptor refuses a block descriptor that asks for another
// capacity or block length than there is: neither can be changed.
func (lu *LogicalUnit) checkBlockDescriptor(d []byte, offset int) error {
	blocks, length := uint64(binary.BigEndian.Uint32(d)), binary.BigEndian.Uint32(d[4:])&0xFFFFFF
	unlimited := uint64(0xFFFFFFFF)
	if len(d) == int(longDescriptor) {
		blocks, length = binary.BigEndian.Uint64(d), binary.BigEndian.Uint32(d[12:])
		unlimited = 0xFFFFFFFFFFFFFFFF
	}
	// Zero keeps the capacity, and all ones asks for the largest (SBC-3 6.5.2.2).
	if blocks != 0 && blocks != unlimited && blocks != lu.Blocks() {
		return InvalidFieldInParameterList(offset, 7)
	}
	if int(length) != lu.LogicalBlockLength() {
		return InvalidFieldInParameterList(offset+len(d)-3, 7)
	}
	return nil
}

// selectPages takes over the pages of list from byte at on. changed reports that
// a value is another than before.
func (m *modeParameters) selectPages(list []byte, at int) (changed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := slices.Clone(m.current)
	for at < len(list) {
		index, end, err := m.findSelectedPage(list, at)
		if err != nil {
			return false, err
		}
		page, err := mergePage(m.current[index], m.pages[index].changeable, list[at:end], at)
		if err != nil {
			return false, err
		}
		next[index] = page
		at = end
	}
	for i := range next {
		changed = changed || !bytes.Equal(next[i], m.current[i])
	}
	m.current = next
	m.mirror()
	return changed, nil
}

// findSelectedPage reads the header of the page at byte at and returns the
// page's index and where it ends.
func (m *modeParameters) findSelectedPage(list []byte, at int) (index, end int, err error) {
	const spf = 0x40
	rest := list[at:]
	code, subpage, bodyAt, bodyLength := rest[0]&0x3F, byte(0), 2, 0
	switch {
	case len(rest) < 2 || rest[0]&spf != 0 && len(rest) < 4:
		return 0, 0, NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	case rest[0]&spf != 0:
		subpage, bodyAt, bodyLength = rest[1], 4, int(binary.BigEndian.Uint16(rest[2:]))
	default:
		bodyLength = int(rest[1])
	}
	index = m.find(code, subpage)
	if index < 0 {
		return 0, 0, InvalidFieldInParameterList(at, 5)
	}
	if bodyAt+bodyLength != len(m.pages[index].defaults) {
		return 0, 0, InvalidFieldInParameterList(at+bodyAt-1, WholeField)
	}
	if bodyAt+bodyLength > len(rest) {
		return 0, 0, NewSense(KeyIllegalRequest, ASCParameterListLengthError)
	}
	return index, at + bodyAt + bodyLength, nil
}

// mergePage returns current with the changeable bits of selected. Any other bit
// that differs is an error (SPC-4 r37 6.9). offset is where selected stands in
// the parameter list.
func mergePage(current, changeable, selected []byte, offset int) ([]byte, error) {
	page := bytes.Clone(current)
	const ps = 0x80 // reserved here, and sent back as read by some initiators
	header := 2
	if selected[0]&0x40 != 0 {
		header = 4
	}
	if (selected[0]^current[0])&^ps != 0 {
		return nil, InvalidFieldInParameterList(offset, WholeField)
	}
	for i := header; i < len(page); i++ {
		if (selected[i]^current[i])&^changeable[i] != 0 {
			return nil, InvalidFieldInParameterList(offset+i, WholeField)
		}
		page[i] = selected[i]
	}
	return page, nil
}
