package mode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"odx/target/scsi/sense"
)

// Select sets the pages of a MODE SELECT parameter list from byte at on, all of them or
// none (SPC-4 r37 6.9, 6.10). changed reports whether a value differs from before.
// Errors of the list are sense data.
func (m *Parameters) Select(ctx context.Context, list []byte, at int) (changed bool, err error) {
	return m.change(ctx, list, at, func([][]byte) error { return nil })
}

// Save is Select, and saves the values of all pages (SP). The logical unit must have
// records.
func (m *Parameters) Save(ctx context.Context, list []byte, at int) (changed bool, err error) {
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
		m.saved = m.withThreshold(next)
		return nil
	})
}

// change merges the pages of list into the current values, and sets them once they are
// kept and save has succeeded.
func (m *Parameters) change(ctx context.Context, list []byte, at int, save func(next [][]byte) error) (changed bool, err error) {
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
	if err = m.keepCurrent(ctx, next); err == nil {
		err = save(next)
	}
	if err == nil {
		changed, err = m.setCurrent(ctx, next)
	}
	if err != nil {
		m.mu.Lock()
		now := m.current
		m.mu.Unlock()
		return false, errors.Join(err, m.keepCurrent(context.WithoutCancel(ctx), now))
	}
	return changed, nil
}

// keepCurrent stores values for the process that takes over from this one.
func (m *Parameters) keepCurrent(ctx context.Context, values [][]byte) error {
	record, err := encodeModes(values)
	if err != nil {
		return err
	}
	return m.era.Save(ctx, modeRecord, record)
}

// setCurrent makes next the current values, unless a reset has ended the command.
func (m *Parameters) setCurrent(ctx context.Context, next [][]byte) (changed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	next = m.withThreshold(next) // it may have changed in the meantime
	for i := range next {
		changed = changed || !bytes.Equal(next[i], m.current[i])
	}
	m.current = next
	m.mirror()
	return changed, nil
}

// merge returns current with the pages of list from byte at on.
func (m *Parameters) merge(current [][]byte, list []byte, at int) ([][]byte, error) {
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
func (m *Parameters) findSelectedPage(list []byte, at int) (index, end int, err error) {
	const spf = 0x40
	rest := list[at:]
	code, subpage, bodyAt, bodyLength := rest[0]&0x3F, byte(0), 2, 0
	switch {
	case len(rest) < 2 || rest[0]&spf != 0 && len(rest) < 4:
		return 0, 0, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	case rest[0]&spf != 0:
		subpage, bodyAt, bodyLength = rest[1], 4, int(binary.BigEndian.Uint16(rest[2:]))
	default:
		bodyLength = int(rest[1])
	}
	index = m.find(code, subpage)
	if index < 0 {
		return 0, 0, sense.InvalidFieldInParameterList(at, 5)
	}
	if bodyAt+bodyLength != len(m.pages[index].defaults) {
		return 0, 0, sense.InvalidFieldInParameterList(at+bodyAt-1, sense.WholeField)
	}
	if bodyAt+bodyLength > len(rest) {
		return 0, 0, sense.New(sense.KeyIllegalRequest, sense.ASCParameterListLengthError)
	}
	return index, at + bodyAt + bodyLength, nil
}

// mergePage returns current with the changeable bits of selected. Any other bit that
// differs is an error (SPC-4 r37 6.9). offset is the position of selected in the
// parameter list.
func mergePage(current, changeable, selected []byte, offset int) ([]byte, error) {
	page := bytes.Clone(current)
	header := 2
	if selected[0]&0x40 != 0 {
		header = 4
	}
	if (selected[0]^current[0])&^pageSavable != 0 { // reserved here; some initiators return what they read
		return nil, sense.InvalidFieldInParameterList(offset, sense.WholeField)
	}
	for i := header; i < len(page); i++ {
		if (selected[i]^current[i])&^changeable[i] != 0 {
			return nil, sense.InvalidFieldInParameterList(offset+i, sense.WholeField)
		}
		page[i] = selected[i]
	}
	return page, nil
}
