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
	if err := checkModeSelect(t); err != nil {
		return err
	}
	t.Wanted = uint32(t.CDB()[4])
	return nil
}

func prepareModeSelect10(t *Task) error {
	if err := checkModeSelect(t); err != nil {
		return err
	}
	t.Wanted = uint32(binary.BigEndian.Uint16(t.CDB()[7:]))
	return nil
}

// Bits of byte 1 of MODE SELECT.
const (
	modeSelectPF = 0x10
	modeSelectSP = 0x01
)

func checkModeSelect(t *Task) error {
	flags := t.CDB()[1]
	if flags&modeSelectPF == 0 { // the parameters of SCSI-1 are not known
		return InvalidFieldInCDB(1, 4)
	}
	if flags&modeSelectSP != 0 && t.LU.modes.records == nil {
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
	take := lu.modes.selectPages
	if t.CDB()[1]&modeSelectSP != 0 {
		take = lu.modes.savePages
	}
	changed, err := take(ctx, list, at)
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
func (m *modeParameters) selectPages(ctx context.Context, list []byte, at int) (changed bool, err error) {
	return m.change(ctx, list, at, func([][]byte) error { return nil })
}

// savePages does the same, and saves the values of all pages (SP).
func (m *modeParameters) savePages(ctx context.Context, list []byte, at int) (changed bool, err error) {
	return m.change(ctx, list, at, func(next [][]byte) error {
		record, err := encodeModes(next)
		if err != nil {
			return err
		}
		if err := m.records.Save(ctx, modeRecord, record); err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.saved = next
		return nil
	})
}

// change merges the pages of list into the current values and takes them over
// once save has succeeded.
func (m *modeParameters) change(ctx context.Context, list []byte, at int, save func(next [][]byte) error) (changed bool, err error) {
	select {
	case m.selecting <- struct{}{}:
		defer func() { <-m.selecting }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	m.mu.Lock()
	before := m.current
	m.mu.Unlock()
	next, err := m.merge(before, list, at)
	if err != nil {
		return false, err
	}
	if err := save(next); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil { // a reset has ended the command
		return false, err
	}
	for i := range next {
		changed = changed || !bytes.Equal(next[i], before[i])
	}
	m.current = next
	m.mirror()
	return changed, nil
}

// merge returns current with the pages of list from byte at on.
func (m *modeParameters) merge(current [][]byte, list []byte, at int) ([][]byte, error) {
	next := slices.Clone(current)
	for at < len(list) {
		index, end, err := m.findSelectedPage(list, at)
		if err != nil {
			return nil, err
		}
		page, err := mergePage(next[index], m.pages[index].changeable, list[at:end], at)
		if err != nil {
			return nil, err
		}
		next[index] = page
		at = end
	}
	return next, nil
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
	header := 2
	if selected[0]&0x40 != 0 {
		header = 4
	}
	if (selected[0]^current[0])&^pageSavable != 0 { // reserved here; some send back what they read
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
