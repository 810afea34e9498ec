package backstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/backstore/blockmap"
	"odx/backstore/record"
	"odx/backstore/rows"
)

// MaxNameLength bounds the name of a volume in bytes.
const MaxNameLength = 255

func checkName(name string) error {
	if name == "" || len(name) > MaxNameLength || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%w: volume name %q; use 1 to %d bytes without control characters", ErrInvalid, name, MaxNameLength)
	}
	return nil
}

// checkNewSize checks a size that v is to have.
func (v *Volume) checkNewSize(size int64) error {
	if v.file {
		return rows.CheckFileSize(size)
	}
	return rows.CheckSize(size)
}

func levelFor(size int64) uint8 {
	return blockmap.LevelFor(uint64((size + BlockLength - 1) / BlockLength))
}

// CreateVolume makes a volume of size bytes that reads as zeros. It is durable
// on return.
func (s *Store) CreateVolume(ctx context.Context, name string, size int64) (*Volume, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := rows.CheckSize(size); err != nil {
		return nil, err
	}
	v := s.newVolume(name)
	v.size = size
	return v, s.createVolume(ctx, v)
}

// createVolume makes v, which has a name, flags and a size, durably.
func (s *Store) createVolume(ctx context.Context, v *Volume) error {
	v.root.Level = levelFor(v.size)
	v.created = time.Now().Unix()
	rand.Read(v.id[:])
	s.catalog.mu.Lock()
	s.catalog.lastVolume++
	v.number = s.catalog.lastVolume
	s.catalog.mu.Unlock()
	if err := s.addVolume(ctx, v); err != nil {
		return err
	}
	return s.Flush(ctx)
}

func (s *Store) addVolume(ctx context.Context, v *Volume) error {
	op, err := s.begin(ctx, &record.CreateVolume{Row: *v.row()})
	if err != nil {
		return err
	}
	defer op.End()
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	if s.catalog.byName[v.key()] != nil {
		return fmt.Errorf("%v: %w", v, ErrExists)
	}
	s.catalog.volumes[v.number], s.catalog.byName[v.key()] = v, v
	op.Commit()
	return nil
}

// Volume returns the volume of that name.
func (s *Store) Volume(name string) (*Volume, error) {
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	v := s.catalog.byName[rows.Name{Name: name}]
	if v == nil {
		return nil, fmt.Errorf("volume %s: %w", name, ErrNotFound)
	}
	return v, nil
}

// VolumeByID returns the volume that was made with a random number.
func (s *Store) VolumeByID(id [16]byte) (*Volume, error) {
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	for _, v := range s.catalog.volumes {
		if v.id == id {
			return v, nil
		}
	}
	return nil, fmt.Errorf("volume %x: %w", id, ErrNotFound)
}

// Owns reports whether v is a volume or a file of this store, or was one until it
// was deleted.
func (s *Store) Owns(v *Volume) bool { return v.store == s }

// Volumes returns all volumes by name.
func (s *Store) Volumes() []*Volume {
	return slices.DeleteFunc(s.catalog.all(), func(v *Volume) bool { return v.file })
}

// DeleteVolume deletes a volume. Operations on it fail from then on; its space
// is given back in the background. Snapshots of it stay.
func (s *Store) DeleteVolume(ctx context.Context, name string) error {
	v, err := s.Volume(name)
	if err != nil {
		return err
	}
	return s.deleteSpace(ctx, v)
}

// deleteSpace deletes a volume or a file.
func (s *Store) deleteSpace(ctx context.Context, v *Volume) error {
	return v.changeWatched(ctx, 0, MaxVolumeBytes/BlockLength, func() error { return s.deleteVolume(ctx, v) })
}

func (s *Store) deleteVolume(ctx context.Context, v *Volume) error {
	op, err := s.begin(ctx, &record.DeleteVolume{Volume: v.number})
	if err != nil {
		return err
	}
	defer op.End()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deleted {
		return fmt.Errorf("%v: %w", v, ErrNotFound)
	}
	if err := v.checkUnprotected(); err != nil {
		return err
	}
	if err := v.watched.check(0, MaxVolumeBytes/BlockLength); err != nil {
		return err
	}
	if err := s.removeVolume(v); err != nil {
		return s.life.fail(err)
	}
	op.Commit()
	return nil
}

// removeVolume takes a locked volume out of the table.
func (s *Store) removeVolume(v *Volume) error {
	s.catalog.mu.Lock()
	delete(s.catalog.byName, v.key())
	s.catalog.mu.Unlock()
	return s.dropVolume(v)
}

// dropVolume takes a locked volume, which has no name any more, out of the table.
func (s *Store) dropVolume(v *Volume) error {
	v.deleted = true
	s.catalog.mu.Lock()
	delete(s.catalog.volumes, v.number)
	s.catalog.deletedVols[v.number] = true
	s.catalog.mu.Unlock()
	root := v.root
	v.root.Node = 0
	return s.dropTree(root)
}

// dropTree gives a tree up. One whose count cannot be read keeps its space.
func (s *Store) dropTree(root blockmap.Root) error {
	err := s.parts.forest.TouchDrop(root)
	if err == nil {
		return s.parts.forest.Drop(root)
	}
	if metadataDamage(err) {
		s.damage.Note("a tree that was given up, whose space is not freed", err)
		return nil
	}
	return err
}

// Grow makes the volume larger; the new bytes read as zeros. It is durable on
// return.
func (v *Volume) Grow(ctx context.Context, size int64) error {
	if err := rows.CheckSize(size); err != nil {
		return err
	}
	if err := v.checkWritable(); err != nil {
		return err
	}
	if old := v.Size(); size < old {
		return fmt.Errorf("%w: %v has %d bytes and cannot shrink to %d", ErrInvalid, v, old, size)
	}
	if err := v.setSize(ctx, size, v.checkThawed); err != nil {
		return err
	}
	return v.store.Flush(ctx)
}

// setSize sets the size, unless refuse says otherwise with v.mu held; what a file loses by
// it reads as zeros already.
func (v *Volume) setSize(ctx context.Context, size int64, refuse func() error) error {
	s := v.store
	op, err := s.begin(ctx, &record.ResizeVolume{Volume: v.number, Size: size})
	if err != nil {
		return err
	}
	defer op.End()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := errors.Join(v.checkRange(0, 0), refuse()); err != nil {
		return err
	}
	if err := v.resize(size); err != nil {
		return err
	}
	op.Commit()
	return nil
}

// resize sets the size of a locked volume. Blocks beyond it are given up.
func (v *Volume) resize(size int64) error {
	blocks := uint64((size + BlockLength - 1) / BlockLength)
	if size < v.size {
		if err := v.store.parts.forest.TouchClear(v.root, blocks, v.root.Blocks()-min(blocks, v.root.Blocks())); err != nil {
			return v.store.life.unread(v.String(), int64(blocks)*BlockLength, err)
		}
		if err := v.store.parts.forest.Clear(&v.root, blocks, v.root.Blocks()-min(blocks, v.root.Blocks())); err != nil {
			return v.store.life.fail(err)
		}
	}
	v.store.parts.forest.Grow(&v.root, blocks)
	v.size = size
	return nil
}
