package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"odx/backstore"
	"odx/blockdev"
)

// scratchVolumePrefix begins the random names of the volumes of StartVolume.
const scratchVolumePrefix = hiddenPrefix + "part-"

// IsScratchVolume reports whether StartVolume gave the name.
func IsScratchVolume(name string) bool { return strings.HasPrefix(name, scratchVolumePrefix) }

// NewScratchVolume returns a new name of that kind.
func NewScratchVolume() string { return scratchVolumePrefix + rand.Text() }

// StartVolume creates a hidden volume of size bytes, which FinishVolume renames to
// name. Unfinished volumes are removed when the store is served again.
func (s *Store) StartVolume(ctx context.Context, name string, size int64) (Volume, error) {
	if err := checkVolumeName(name); err != nil {
		return Volume{}, err
	}
	if _, err := s.store.Volume(name); err == nil {
		return Volume{}, fmt.Errorf("volume %s: %w", name, backstore.ErrExists)
	}
	if err := s.RemoveUnfinishedVolumes(ctx); err != nil {
		return Volume{}, err
	}
	v, err := s.store.CreateVolume(ctx, NewScratchVolume(), size)
	if err != nil {
		return Volume{}, err
	}
	return s.describe(v), nil
}

// FinishVolume gives a volume of StartVolume an unused name, durably.
func (s *Store) FinishVolume(ctx context.Context, scratch, name string) (Volume, error) {
	if !IsScratchVolume(scratch) {
		return Volume{}, fmt.Errorf("%w: volume %s is not one of StartVolume", blockdev.ErrInvalid, scratch)
	}
	// A clone under the new name: after a crash it is complete or absent.
	v, err := s.CloneVolume(ctx, scratch, name)
	if err != nil {
		return Volume{}, err
	}
	if err := errors.Join(s.store.DeleteVolume(ctx, scratch), s.store.Flush(ctx)); err != nil {
		return Volume{}, err
	}
	v.Origin = ""
	return v, nil
}

// RemoveUnfinishedVolumes removes, at its first call, the volumes that clients of an
// earlier process started and did not finish.
func (s *Store) RemoveUnfinishedVolumes(ctx context.Context) error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if s.swept || s.readOnly {
		return nil
	}
	for _, v := range s.store.Volumes() {
		if !IsScratchVolume(v.Name()) {
			continue
		}
		if err := s.store.DeleteVolume(ctx, v.Name()); err != nil {
			return fmt.Errorf("remove the volume of an interrupted copy: %w", err)
		}
		s.log.WithField("volume", v.Name()).Info("volume of an interrupted copy removed")
	}
	s.swept = true
	return nil
}
