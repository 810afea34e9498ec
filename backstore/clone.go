package backstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"odx/backstore/record"
	"odx/backstore/rows"
)

// A clone is a volume that begins with the tree of another one: the two share
// every node and part where either is written to. It is made in one journal
// record and one reference, however large the volume is, so a crash leaves all
// of it or nothing. A snapshot of a volume, for the administrator, is a clone
// that is never written to; Snapshot, the type, is what tokens pin.

// CloneVolume makes a volume that equals src as it is now, and its size. It is
// durable on return. The clone of a read-only volume can be written to.
func (s *Store) CloneVolume(ctx context.Context, src, name string) (*Volume, error) {
	return s.cloneVolume(ctx, src, s.newVolume(name))
}

// VolumeOf makes a volume that equals src, a volume or a file, as it is now. It is
// durable on return. ErrInvalid: no volume can have its size.
func (s *Store) VolumeOf(ctx context.Context, src *Volume, name string) (*Volume, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := rows.CheckSize(src.Size()); err != nil {
		return nil, err
	}
	v := s.newVolume(name)
	return v, s.clone(ctx, src, v)
}

// SnapshotVolume makes a read-only volume that equals src as it is now: writes
// to it give ErrReadOnly for its whole life. It is durable on return.
func (s *Store) SnapshotVolume(ctx context.Context, src, name string) (*Volume, error) {
	v := s.newVolume(name)
	v.readOnly = true
	return s.cloneVolume(ctx, src, v)
}

func (s *Store) cloneVolume(ctx context.Context, src string, v *Volume) (*Volume, error) {
	if err := checkName(v.Name()); err != nil {
		return nil, err
	}
	from, err := s.Volume(src)
	if err != nil {
		return nil, err
	}
	return v, s.clone(ctx, from, v)
}

// clone makes v, which has a name and flags, equal to from, durably.
func (s *Store) clone(ctx context.Context, from, v *Volume) error {
	rand.Read(v.id[:])
	v.created = time.Now().Unix()
	s.catalog.mu.Lock()
	s.catalog.lastVolume++
	v.number = s.catalog.lastVolume
	s.catalog.mu.Unlock()
	if err := s.addClone(ctx, from, v); err != nil {
		return err
	}
	return s.Flush(ctx)
}

func (s *Store) addClone(ctx context.Context, from, v *Volume) error {
	op, err := s.begin(ctx, &record.CloneVolume{
		From: from.number, Number: v.number, ID: v.id, Name: v.Name(), Flags: v.flags(), Created: v.created,
	})
	if err != nil {
		return err
	}
	defer op.End()
	// Shared is enough, as for a snapshot: the tree only gains a reference, and
	// writers are kept out.
	from.mu.RLock()
	defer from.mu.RUnlock()
	if err := from.checkRange(0, 0); err != nil {
		return err
	}
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	if s.catalog.byName[v.key()] != nil {
		return fmt.Errorf("%v: %w", v, ErrExists)
	}
	if err := s.shareTree(from, v); err != nil {
		return s.life.unread(from.String(), 0, err)
	}
	s.catalog.volumes[v.number], s.catalog.byName[v.key()] = v, v
	op.Commit()
	return nil
}

// shareTree gives v, which has none, the size and the tree of from.
func (s *Store) shareTree(from, v *Volume) error {
	v.size, v.root, v.origin = from.size, from.root, from.number
	return s.parts.forest.Hold(v.root)
}

// ReadOnly reports whether the volume is a snapshot, which nothing can be
// written to.
func (v *Volume) ReadOnly() bool { return v.readOnly }

// Created returns when the volume was made, the zero time if that is not known.
func (v *Volume) Created() time.Time {
	if v.created == 0 {
		return time.Time{}
	}
	return time.Unix(v.created, 0)
}

// Origin returns the name of the volume that this one was cloned from; ok is
// false when it is no clone, or when that volume was deleted.
func (v *Volume) Origin() (name string, ok bool) {
	v.store.catalog.mu.Lock()
	defer v.store.catalog.mu.Unlock()
	from := v.store.catalog.volumes[v.origin]
	if from == nil {
		return "", false
	}
	return from.Name(), true
}
