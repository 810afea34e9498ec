package backstore

import (
	"context"

	"odx/backstore/journal"
	"odx/backstore/record"
)

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
func (s *Store) begin(ctx context.Context, rec record.Record) (operation, error) {
	o := operation{store: s}
	if err := s.life.writable(); err != nil {
		return o, err
	}
	if err := s.pace.throttle(ctx); err != nil {
		return o, err
	}
	o.head, o.data = rec.Encode()
	size := len(o.head) + len(o.data)
	if err := s.parts.journal.Reserve(ctx, size); err != nil {
		return o, spaceError(err)
	}
	s.opMu.RLock()
	if err := s.life.usable(); err != nil {
		s.opMu.RUnlock()
		s.parts.journal.Unreserve(size)
		return o, err
	}
	o.reserved = size
	return o, nil
}

// revise replaces the record by another one that is not longer.
func (o *operation) revise(rec record.Record) {
	o.head, o.data = rec.Encode()
}

// Commit appends the record to the journal, and returns its number. The caller holds the
// locks of the change, which is complete.
func (o *operation) Commit() journal.LSN {
	lsn := o.store.parts.journal.Append(o.head, o.data)
	o.reserved -= len(o.head) + len(o.data)
	return lsn
}

// End ends the operation, committed or not.
func (o *operation) End() {
	o.store.opMu.RUnlock()
	if o.reserved > 0 {
		o.store.parts.journal.Unreserve(o.reserved)
	}
}

// reserveMore reserves room in the journal for another record of an operation that begins
// next. It is committed with that operation's locks held, or given back.
func (s *Store) reserveMore(ctx context.Context, rec record.Record) (operation, error) {
	o := operation{store: s}
	if err := s.life.writable(); err != nil {
		return o, err
	}
	o.head, o.data = rec.Encode()
	size := len(o.head) + len(o.data)
	if err := s.parts.journal.Reserve(ctx, size); err != nil {
		return o, spaceError(err)
	}
	o.reserved = size
	return o, nil
}

// giveBack gives back what reserveMore has reserved, if it was not committed.
func (o *operation) giveBack() {
	if o.reserved > 0 {
		o.store.parts.journal.Unreserve(o.reserved)
	}
}
