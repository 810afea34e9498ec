package backstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/backstore/blockmap"
)

// MaxNameLength bounds the name of a volume in bytes.
const MaxNameLength = 255

func checkName(name string) error {
	if name == "" || len(name) > MaxNameLength || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%w: volume name %q; use 1 to %d bytes without control characters", ErrInvalid, name, MaxNameLength)
	}
	return nil
}

func checkSize(size int64) error {
	if size <= 0 || size > MaxVolumeBytes || size%512 != 0 {
		return fmt.Errorf("%w: volume of %d bytes; use a multiple of 512 up to 1 PiB", ErrInvalid, size)
	}
	return nil
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
	if err := checkSize(size); err != nil {
		return nil, err
	}
	v := &Volume{store: s, name: name, size: size, root: blockmap.Root{Level: levelFor(size)}, created: time.Now().Unix()}
	rand.Read(v.id[:])
	s.tableMu.Lock()
	s.lastVolume++
	v.number = s.lastVolume
	s.tableMu.Unlock()
	if err := s.addVolume(ctx, v); err != nil {
		return nil, err
	}
	return v, s.Flush(ctx)
}

func (s *Store) addVolume(ctx context.Context, v *Volume) error {
	var e enc
	e.byte(recCreateVolume)
	e.raw(v.encode())
	unused := len(e.b)
	if err := s.begin(ctx, unused); err != nil {
		return err
	}
	defer func() { s.end(unused) }()
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	if s.byName[v.name] != nil {
		return fmt.Errorf("volume %s: %w", v.name, ErrExists)
	}
	s.volumes[v.number], s.byName[v.name] = v, v
	s.journal.Append(e.b, nil)
	unused = 0
	return nil
}

// Volume returns the volume of that name.
func (s *Store) Volume(name string) (*Volume, error) {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	v := s.byName[name]
	if v == nil {
		return nil, fmt.Errorf("volume %s: %w", name, ErrNotFound)
	}
	return v, nil
}

// VolumeByID returns the volume that was made with a random number.
func (s *Store) VolumeByID(id [16]byte) (*Volume, error) {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	for _, v := range s.volumes {
		if v.id == id {
			return v, nil
		}
	}
	return nil, fmt.Errorf("volume %x: %w", id, ErrNotFound)
}

// Volumes returns all volumes by name.
func (s *Store) Volumes() []*Volume {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	all := make([]*Volume, 0, len(s.volumes))
	for _, v := range s.volumes {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *Volume) int { return strings.Compare(a.name, b.name) })
	return all
}

// DeleteVolume deletes a volume. Operations on it fail from then on; its space
// is given back in the background. Snapshots of it stay.
func (s *Store) DeleteVolume(ctx context.Context, name string) error {
	v, err := s.Volume(name)
	if err != nil {
		return err
	}
	return v.changeWatched(ctx, 0, MaxVolumeBytes/BlockLength, func() error { return s.deleteVolume(ctx, v) })
}

func (s *Store) deleteVolume(ctx context.Context, v *Volume) error {
	var e enc
	e.byte(recDeleteVolume)
	e.uint(v.number)
	unused := len(e.b)
	if err := s.begin(ctx, unused); err != nil {
		return err
	}
	defer func() { s.end(unused) }()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deleted {
		return fmt.Errorf("volume %s: %w", v.name, ErrNotFound)
	}
	if err := v.watched.check(0, MaxVolumeBytes/BlockLength); err != nil {
		return err
	}
	if err := s.removeVolume(v); err != nil {
		return s.fail(err)
	}
	s.journal.Append(e.b, nil)
	unused = 0
	return nil
}

// removeVolume takes a locked volume out of the table.
func (s *Store) removeVolume(v *Volume) error {
	v.deleted = true
	s.tableMu.Lock()
	delete(s.volumes, v.number)
	delete(s.byName, v.name)
	s.deletedVols[v.number] = true
	s.tableMu.Unlock()
	root := v.root
	v.root.Node = 0
	return s.forest.Drop(root)
}

// Grow makes the volume larger; the new bytes read as zeros. It is durable on
// return.
func (v *Volume) Grow(ctx context.Context, size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	if err := v.checkWritable(); err != nil {
		return err
	}
	if err := v.grow(ctx, size); err != nil {
		return err
	}
	return v.store.Flush(ctx)
}

func (v *Volume) grow(ctx context.Context, size int64) error {
	s := v.store
	var e enc
	e.byte(recResizeVolume)
	e.uint(v.number)
	e.uint(uint64(size))
	unused := len(e.b)
	if err := s.begin(ctx, unused); err != nil {
		return err
	}
	defer func() { s.end(unused) }()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.checkRange(0, 0); err != nil {
		return err
	}
	if size < v.size {
		return fmt.Errorf("%w: volume %s has %d bytes and cannot shrink to %d", ErrInvalid, v.name, v.size, size)
	}
	v.resize(size)
	s.journal.Append(e.b, nil)
	unused = 0
	return nil
}

// resize sets the size of a locked volume, at least its old one.
func (v *Volume) resize(size int64) {
	v.store.forest.Grow(&v.root, uint64((size+BlockLength-1)/BlockLength))
	v.size = size
}

// encode returns the volume's stored form: number, id, name, size, root, flags,
// origin, time of creation.
func (v *Volume) encode() []byte {
	var e enc
	e.uint(v.number)
	e.raw(v.id[:])
	e.bytes([]byte(v.name))
	e.uint(uint64(v.size))
	e.uint(v.root.Node)
	e.byte(v.root.Level)
	e.byte(v.flags())
	e.uint(v.origin)
	e.uint(uint64(v.created))
	return e.b
}

func (d *dec) volume(s *Store) *Volume {
	v := &Volume{store: s, number: d.uint(), id: d.id16(), name: string(d.bytes()), size: d.int63()}
	v.root = blockmap.Root{Node: d.uint(), Level: d.byte()}
	if len(d.b) > 0 { // the first stores kept no more than this
		v.setFlags(d.byte())
		v.origin, v.created = d.uint(), d.int63()
	}
	if v.root.Level > blockmap.MaxLevel || checkSize(v.size) != nil || v.root.Blocks() < uint64(v.size)/BlockLength {
		d.fail()
	}
	return v
}
