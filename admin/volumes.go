package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
)

// Volume describes a volume of the store.
type Volume struct {
	Name string
	// ID is the volume's permanent number in hexadecimal.
	ID        string
	SizeBytes int64
	// ReadOnly: the volume is a snapshot.
	ReadOnly bool
	// Origin is the volume that this one was cloned from, empty if there was none or it
	// was deleted.
	Origin string
	// Created is zero where the store does not know it.
	Created time.Time
	// LUNs are the LUNs of the configuration on the volume, as "TARGET/LUN".
	LUNs []string
}

// hiddenPrefix begins the names of internal volumes, such as the stages of copies. No
// configuration can name one.
const hiddenPrefix = "."

// Volumes implements Administrator.
func (s *Store) Volumes(context.Context) ([]Volume, error) { return s.volumes(), nil }

// volumes describes the volumes of the store, by name.
func (s *Store) volumes() []Volume {
	all := []Volume{}
	for _, v := range s.store.Volumes() {
		if !strings.HasPrefix(v.Name(), hiddenPrefix) {
			all = append(all, s.describe(v))
		}
	}
	return all
}

func (s *Store) describe(v *backstore.Volume) Volume {
	d := Volume{
		Name: v.Name(), ID: fmt.Sprintf("%x", s.store.Identify(v.ID())), SizeBytes: v.Size(),
		ReadOnly: v.ReadOnly(), Created: v.Created().UTC(), LUNs: []string{},
	}
	d.Origin, _ = v.Origin()
	for _, l := range s.lunsOn(volumeMedium(v.Name())) {
		d.LUNs = append(d.LUNs, fmt.Sprintf("%s/%d", l.target, l.Number))
	}
	return d
}

// volume returns a volume of the store by name. Of the hidden ones it returns those of
// StartVolume, whose random names only their clients know.
func (s *Store) volume(name string) (*backstore.Volume, error) {
	if strings.HasPrefix(name, hiddenPrefix) && !IsScratchVolume(name) {
		return nil, fmt.Errorf("volume %s: %w", name, backstore.ErrNotFound)
	}
	return s.store.Volume(name)
}

func checkVolumeName(name string) error {
	if err := conf.CheckVolumeName(name); err != nil {
		return fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	return nil
}

// CreateVolume creates a thin volume of size bytes. It is durable on return.
func (s *Store) CreateVolume(ctx context.Context, name string, size int64) (Volume, error) {
	if err := checkVolumeName(name); err != nil {
		return Volume{}, err
	}
	v, err := s.store.CreateVolume(ctx, name, size)
	if err != nil {
		return Volume{}, err
	}
	s.log.WithField("volume", name).WithField("size", conf.FormatSize(size)).Info("volume created")
	return s.describe(v), nil
}

// ResizeVolume grows a volume, durably. Initiators that have it as a LUN get a unit
// attention.
func (s *Store) ResizeVolume(ctx context.Context, name string, size int64) (Volume, error) {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	v, err := s.volume(name)
	if err != nil {
		return Volume{}, err
	}
	if err := s.checkServed(name); err != nil {
		return Volume{}, err
	}
	for _, l := range s.lunsOn(volumeMedium(name)) {
		if size%int64(l.BlockSize) != 0 {
			return Volume{}, fmt.Errorf("%w: %d bytes are not a multiple of the block size %d of LUN %d of %s", blockdev.ErrInvalid, size, l.BlockSize, l.Number, l.target)
		}
	}
	if err := v.Grow(ctx, size); err != nil {
		return Volume{}, err
	}
	if s.server != nil {
		s.server.Resized(name)
	}
	s.log.WithField("volume", name).WithField("size", conf.FormatSize(size)).Info("volume resized")
	return s.describe(v), nil
}

// DeleteVolume deletes a volume that is no LUN of the configuration, durably.
func (s *Store) DeleteVolume(ctx context.Context, name string) error {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	v, err := s.volume(name)
	if err != nil {
		return err
	}
	if err := s.checkNoLUN(volumeMedium(name)); err != nil {
		return err
	}
	if err := s.checkServed(name); err != nil {
		return err
	}
	if err := s.store.DeleteVolume(ctx, name); err != nil {
		return err
	}
	if err := errors.Join(s.forgetOwnUnit(ctx, v.ID()), s.endOrphans(ctx)); err != nil {
		return err
	}
	if err := s.store.Flush(ctx); err != nil {
		return err
	}
	s.log.WithField("volume", name).Info("volume deleted")
	return nil
}

// CloneVolume creates a volume that equals src as it is now and shares its data. It is
// durable on return.
func (s *Store) CloneVolume(ctx context.Context, src, name string) (Volume, error) {
	return s.copyVolume(ctx, src, name, s.store.CloneVolume, "volume cloned")
}

// SnapshotVolume creates a read-only volume that equals src as it is now and shares its
// data. It is durable on return.
func (s *Store) SnapshotVolume(ctx context.Context, src, name string) (Volume, error) {
	return s.copyVolume(ctx, src, name, s.store.SnapshotVolume, "snapshot created")
}

func (s *Store) copyVolume(ctx context.Context, src, name string, clone func(ctx context.Context, src, name string) (*backstore.Volume, error), done string) (Volume, error) {
	if err := checkVolumeName(name); err != nil {
		return Volume{}, err
	}
	if _, err := s.volume(src); err != nil {
		return Volume{}, err
	}
	v, err := clone(ctx, src, name)
	if err != nil {
		return Volume{}, err
	}
	s.log.WithField("volume", name).WithField("origin", src).Info(done)
	return s.describe(v), nil
}
