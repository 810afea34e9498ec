package backstore

import (
	"context"
	"fmt"

	"odx/backstore/codec"
	"odx/backstore/journal"
)

// Kinds of journal records; the first byte of each. A number is never used for
// anything else, and what a kind's record looks like never changes.
const (
	recWrite          = 1
	recClear          = 2
	recMap            = 3
	recSnapshot       = 4
	recDeleteSnapshot = 5
	recCreateVolume   = 6
	recDeleteVolume   = 7
	recRecords        = 8
	recResizeVolume   = 9
	recCloneVolume    = 10
	recRenameFile     = 11
	recReplaceFiles   = 12
)

// record is a journal record: what is needed to do an operation once more on the
// state that the records before it produced. Records are written in the order in
// which the operations took effect. Each kind has its own type.
type record interface {
	// encode returns the payload in two parts, the kind first. They are valid
	// until the record changes.
	encode() (head, data []byte)
	// decode reads what follows the kind; d says whether it could.
	decode(d *codec.Decoder)
	// apply does the operation again. It runs before anything else uses the
	// store, so it takes no locks.
	apply(s *Store) error
	// changes says what the record changes, for people, and has n follow it.
	changes(n *names) []Change
}

// newRecord returns an empty record of a kind, nil for an unknown one.
func newRecord(kind byte) record {
	switch kind {
	case recWrite:
		return &writeRecord{}
	case recClear:
		return &clearRecord{}
	case recMap:
		return &mapRecord{}
	case recSnapshot:
		return &snapshotRecord{}
	case recDeleteSnapshot:
		return &deleteSnapshotRecord{}
	case recCreateVolume:
		return &createVolumeRecord{}
	case recDeleteVolume:
		return &deleteVolumeRecord{}
	case recRecords:
		return &recordsRecord{}
	case recResizeVolume:
		return &resizeVolumeRecord{}
	case recCloneVolume:
		return &cloneVolumeRecord{}
	case recRenameFile:
		return &renameFileRecord{}
	case recReplaceFiles:
		return &replaceFilesRecord{}
	}
	return nil
}

// decodeRecord reads the payload of a journal record of a store whose extents
// have up to unit blocks. The record may keep parts of payload.
func decodeRecord(payload []byte, unit int) (record, error) {
	d := &codec.Decoder{B: payload, Unit: unit}
	kind := d.Byte()
	if d.Err != nil {
		return nil, d.Err
	}
	r := newRecord(kind)
	if r == nil {
		return nil, fmt.Errorf("%w: unknown kind %d", ErrCorrupt, kind)
	}
	r.decode(d)
	d.End()
	return r, d.Err
}

// redo does the operation of one journal record again.
func (s *Store) redo(rec journal.Record) error {
	r, err := s.readRecord(rec)
	if err == nil {
		err = r.apply(s)
	}
	if err != nil {
		return fmt.Errorf("journal record %d: %w", rec.LSN, err)
	}
	s.redone = rec.LSN
	return nil
}

// readRecord decodes a record of the journal and proves, where it may be what a power
// cut left, that its data is there: journal.ErrCut.
func (s *Store) readRecord(rec journal.Record) (record, error) {
	r, err := decodeRecord(rec.Payload, s.sb.Unit)
	if w, ok := r.(*writeRecord); ok && !rec.Durable && err == nil {
		err = w.verify(s)
	}
	return r, err
}

// operation is a change of the store on its way: from begin to End, opMu is shared
// and the journal has room for its record.
type operation struct {
	store      *Store
	head, data []byte // the payload
	reserved   int    // bytes of the journal
}

// begin starts an operation with a record: it waits until the journal has room
// and the checkpoints keep up. After it, the operation takes its locks, changes
// the state in memory and commits while it still holds them; then it calls End.
func (s *Store) begin(ctx context.Context, rec record) (operation, error) {
	o := operation{store: s}
	if err := s.writable(); err != nil {
		return o, err
	}
	if err := s.throttle(ctx); err != nil {
		return o, err
	}
	o.head, o.data = rec.encode()
	size := len(o.head) + len(o.data)
	if err := s.journal.Reserve(ctx, size); err != nil {
		return o, spaceError(err)
	}
	s.opMu.RLock()
	if err := s.usable(); err != nil {
		s.opMu.RUnlock()
		s.journal.Unreserve(size)
		return o, err
	}
	o.reserved = size
	return o, nil
}

// revise replaces the record by another one that is not longer.
func (o *operation) revise(rec record) {
	o.head, o.data = rec.encode()
}

// Commit appends the record to the journal. The caller holds the locks of the
// change, which is complete.
func (o *operation) Commit() {
	o.store.journal.Append(o.head, o.data)
	o.reserved -= len(o.head) + len(o.data)
}

// End ends the operation, committed or not.
func (o *operation) End() {
	o.store.opMu.RUnlock()
	if o.reserved > 0 {
		o.store.journal.Unreserve(o.reserved)
	}
}
