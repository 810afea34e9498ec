package backstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"odx/backstore/record"
)

// A group of snapshots is taken at one point: while all volumes are locked, no write to any
// of them takes effect, so that a write which was answered before another one began is in
// the group if the other one is.
//
// The records of the caller come before the snapshots in the journal, and have their
// identities: after a crash there is no snapshot that the records do not name. There can be
// fewer than they name.

// NewSnapshot says what SnapshotAll is to make.
type NewSnapshot struct {
	// Of is a volume or a file of the store, Name the name that its snapshot gets in the
	// same name space.
	Of   *Volume
	Name string
	// ID is the identity that the snapshot gets: 16 random bytes.
	ID [16]byte
}

// SnapshotAll puts records, and makes read-only volumes, and of files read-only files, that
// equal others as they are at one point in time. It is durable on return. After a crash the
// records and the first ones of the snapshots can be there, but no snapshot without the
// records. After an error nothing was made and no record put, unless it is that of the flush.
func (s *Store) SnapshotAll(ctx context.Context, all []NewSnapshot, recs ...Record) ([]*Volume, error) {
	if err := checkRecords(recs); err != nil {
		return nil, err
	}
	made, err := s.prepareGroup(all)
	if err != nil {
		return nil, err
	}
	if err := s.addGroup(ctx, all, made, recs); err != nil {
		return nil, err
	}
	return made, s.Flush(ctx)
}

// prepareGroup returns the volumes that are to be made, in the order of all.
func (s *Store) prepareGroup(all []NewSnapshot) ([]*Volume, error) {
	made := make([]*Volume, len(all))
	for i, n := range all {
		if err := checkName(n.Name); err != nil {
			return nil, err
		}
		if n.Of.store != s {
			return nil, fmt.Errorf("%w: %v is of another store", ErrInvalid, n.Of)
		}
		v := s.newVolume(n.Name)
		v.id, v.file, v.readOnly, v.created = n.ID, n.Of.file, true, time.Now().Unix()
		if slices.ContainsFunc(all[:i], func(o NewSnapshot) bool { return o.ID == n.ID || o.Name == n.Name && o.Of.file == n.Of.file }) {
			return nil, fmt.Errorf("%v: %w", v, ErrExists)
		}
		made[i] = v
	}
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	for _, v := range made {
		s.catalog.lastVolume++
		v.number = s.catalog.lastVolume
	}
	return made, nil
}

// groupRecords returns the records of the journal, in their order.
func groupRecords(all []NewSnapshot, made []*Volume, recs []Record) []record.Record {
	list := make([]record.Record, 0, len(made)+1)
	if len(recs) > 0 {
		list = append(list, &record.PutClients{Records: recs})
	}
	for i, v := range made {
		list = append(list, &record.CloneVolume{From: all[i].Of.number, Number: v.number, ID: v.id, Name: v.Name(), Flags: v.flags(), Created: v.created})
	}
	return list
}

// addGroup enters the snapshots and the records.
func (s *Store) addGroup(ctx context.Context, all []NewSnapshot, made []*Volume, recs []Record) error {
	ops, err := s.beginAll(ctx, groupRecords(all, made, recs))
	if err != nil {
		return err
	}
	defer ops.end()
	locked := slices.Clone(all)
	slices.SortFunc(locked, func(a, b NewSnapshot) int { return cmp.Compare(a.Of.number, b.Of.number) })
	for i, n := range locked {
		if i > 0 && n.Of == locked[i-1].Of {
			continue // a lock is not taken twice
		}
		n.Of.mu.RLock()
		defer n.Of.mu.RUnlock()
		if err := n.Of.checkRange(0, 0); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	for _, v := range made {
		if s.catalog.byName[v.key()] != nil {
			return fmt.Errorf("%v: %w", v, ErrExists)
		}
	}
	if err := s.shareAll(all, made); err != nil {
		return err
	}
	s.records.mu.Lock()
	defer s.records.mu.Unlock()
	s.records.put(recs)
	for _, v := range made {
		s.catalog.volumes[v.number], s.catalog.byName[v.key()] = v, v
	}
	ops.commit()
	return nil
}

// shareAll gives the snapshots their trees; after an error none has one.
func (s *Store) shareAll(all []NewSnapshot, made []*Volume) error {
	for i, v := range made {
		err := s.shareTree(all[i].Of, v)
		if err == nil {
			continue
		}
		err = s.life.unread(all[i].Of.String(), 0, err)
		for _, shared := range made[:i] {
			if dropped := s.dropTree(shared.root); dropped != nil {
				return s.life.fail(dropped)
			}
		}
		return err
	}
	return nil
}

// operations are several records of the journal that are appended at once: as an
// operation, but for several records, because opMu is not taken twice.
type operations struct {
	store    *Store
	payloads [][2][]byte
	reserved int // bytes of the journal
}

// beginAll is begin for several records.
func (s *Store) beginAll(ctx context.Context, recs []record.Record) (*operations, error) {
	o := &operations{store: s}
	if err := s.life.writable(); err != nil {
		return nil, err
	}
	if err := s.pace.throttle(ctx); err != nil {
		return nil, err
	}
	size := 0
	for _, rec := range recs {
		head, data := rec.Encode()
		o.payloads = append(o.payloads, [2][]byte{head, data})
		size += len(head) + len(data)
	}
	if err := s.parts.journal.Reserve(ctx, size); err != nil {
		return nil, spaceError(err)
	}
	o.reserved = size
	s.opMu.RLock()
	if err := s.life.usable(); err != nil {
		s.opMu.RUnlock()
		o.unreserve()
		return nil, err
	}
	return o, nil
}

// commit appends the records. The caller holds the locks of the changes.
func (o *operations) commit() {
	for _, p := range o.payloads {
		o.store.parts.journal.Append(p[0], p[1])
	}
	o.reserved = 0
}

// end ends the operations, committed or not.
func (o *operations) end() {
	o.store.opMu.RUnlock()
	o.unreserve()
}

func (o *operations) unreserve() {
	if o.reserved > 0 {
		o.store.parts.journal.Unreserve(o.reserved)
	}
	o.reserved = 0
}

// Delete deletes a volume or a file, whatever it is called by now, as DeleteVolume and
// DeleteFile do by name. ErrNotFound: it was deleted.
func (s *Store) Delete(ctx context.Context, v *Volume) error {
	if v.store != s {
		return fmt.Errorf("%w: %v is of another store", ErrInvalid, v)
	}
	return s.deleteSpace(ctx, v)
}

// Deleted reports whether the volume or file was deleted.
func (v *Volume) Deleted() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.deleted
}
