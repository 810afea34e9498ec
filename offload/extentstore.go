package offload

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/backstore"
	"odx/blockdev"
)

// ExtentStore is a *backstore.Store as the Store of an Engine and of a token manager.
type ExtentStore struct{ *backstore.Store }

// Snapshot opens a snapshot.
func (s ExtentStore) Snapshot(id uint64) (Snapshot, error) {
	snap, err := s.Store.Snapshot(id)
	if err != nil {
		return nil, err
	}
	return snap, nil
}

// AddressSpace implements Store.
func (s ExtentStore) AddressSpace(v blockdev.Volume) (AddressSpace, bool) {
	// A volume of another store is a stranger to the snapshots of this one.
	volume, ok := v.(*backstore.Volume)
	if !ok || !s.Owns(volume) {
		return nil, false
	}
	return extentVolume{volume}, true
}

// Space returns the address space with an ID.
func (s ExtentStore) Space(id [16]byte) (AddressSpace, error) {
	v, err := s.VolumeByID(id)
	if err != nil {
		return nil, err
	}
	return extentVolume{v}, nil
}

// Spaces returns all address spaces but stages, files last.
func (s ExtentStore) Spaces() []AddressSpace {
	var spaces []AddressSpace
	for _, v := range s.Volumes() {
		if !strings.HasPrefix(v.Name(), stagePrefix) {
			spaces = append(spaces, extentVolume{v})
		}
	}
	for _, v := range s.Files() {
		spaces = append(spaces, extentVolume{v})
	}
	return spaces
}

// NewDigest returns the digest of no bytes.
func (s ExtentStore) NewDigest() Digest { return s.Store.NewDigest() }

// CreateStage implements Store.
func (s ExtentStore) CreateStage(ctx context.Context, name string, size int64) (AddressSpace, error) {
	v, err := s.CreateVolume(ctx, name, size)
	if err != nil {
		return nil, err
	}
	return extentVolume{v}, nil
}

// DeleteStages implements Store.
func (s ExtentStore) DeleteStages(ctx context.Context, prefix string) error {
	var errs []error
	for _, v := range s.Volumes() {
		if strings.HasPrefix(v.Name(), prefix) {
			if err := s.DeleteVolume(ctx, v.Name()); !errors.Is(err, backstore.ErrStoreReadOnly) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// FilePrefix begins the name of a file where a volume could stand, too.
const FilePrefix = "file:"

// extentVolume shows a *backstore.Volume as an AddressSpace.
type extentVolume struct{ *backstore.Volume }

func (v extentVolume) Name() string {
	if v.IsFile() {
		return FilePrefix + v.Volume.Name()
	}
	return v.Volume.Name()
}

func (v extentVolume) Snapshot(ctx context.Context, ranges []blockdev.Range, recs func(uint64) []backstore.Record) (Snapshot, error) {
	snap, err := v.Volume.Snapshot(ctx, ranges, recs)
	if err != nil {
		return nil, err
	}
	return snap, nil
}

func (v extentVolume) Watch(ctx context.Context, ranges []blockdev.Range, recs []backstore.Record, changing func(context.Context) error) (Watch, error) {
	w, err := v.Volume.Watch(ctx, ranges, recs, changing)
	if err != nil {
		return nil, err
	}
	return extentWatch{w}, nil
}

// extentWatch shows a *backstore.Watch as a Watch.
type extentWatch struct{ *backstore.Watch }

func (w extentWatch) Snapshot(ctx context.Context, ranges []blockdev.Range, recs func(uint64) []backstore.Record) (Snapshot, error) {
	snap, err := w.Watch.Snapshot(ctx, ranges, recs)
	if err != nil {
		return nil, err
	}
	return snap, nil
}

func (v extentVolume) Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error) {
	snap, ok := s.(*backstore.Snapshot)
	if !ok {
		return 0, fmt.Errorf("%w: snapshot of another store", blockdev.ErrInvalid)
	}
	return v.Volume.Map(ctx, dst, snap, src, length)
}
