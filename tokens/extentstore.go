package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/backstore"
	"odx/blockdev"
)

// extentStore shows a *backstore.Store as a Store.
type extentStore struct{ *backstore.Store }

// ExtentStore returns s as the Store of a Manager.
func ExtentStore(s *backstore.Store) Store { return extentStore{s} }

func (s extentStore) Snapshot(id uint64) (Snapshot, error) {
	snap, err := s.Store.Snapshot(id)
	if err != nil {
		return nil, err
	}
	return snap, nil
}

func (s extentStore) AddressSpace(v blockdev.Volume) (AddressSpace, bool) {
	// A volume of another store is a stranger to the snapshots of this one.
	volume, ok := v.(*backstore.Volume)
	if !ok || !s.Owns(volume) {
		return nil, false
	}
	return extentVolume{volume}, true
}

func (s extentStore) Space(id [16]byte) (AddressSpace, error) {
	v, err := s.VolumeByID(id)
	if err != nil {
		return nil, err
	}
	return extentVolume{v}, nil
}

func (s extentStore) Spaces() []AddressSpace {
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

func (s extentStore) NewDigest() Digest { return s.Store.NewDigest() }

func (s extentStore) CreateStage(ctx context.Context, name string, size int64) (AddressSpace, error) {
	v, err := s.CreateVolume(ctx, name, size)
	if err != nil {
		return nil, err
	}
	return extentVolume{v}, nil
}

func (s extentStore) DeleteStages(ctx context.Context, prefix string) error {
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
