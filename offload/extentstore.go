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

// Object implements Store.
func (s ExtentStore) Object(v blockdev.Volume) (Object, bool) {
	// Snapshots of this store cannot be mapped to a volume of another one.
	volume, ok := v.(*backstore.Volume)
	if !ok || !s.Owns(volume) {
		return nil, false
	}
	return extentVolume{volume}, true
}

// ObjectByID returns the object with an ID.
func (s ExtentStore) ObjectByID(id [16]byte) (Object, error) {
	v, err := s.VolumeByID(id)
	if err != nil {
		return nil, err
	}
	return extentVolume{v}, nil
}

// Objects returns all objects but stages, files last.
func (s ExtentStore) Objects() []Object {
	var objects []Object
	for _, v := range s.Volumes() {
		if !strings.HasPrefix(v.Name(), stagePrefix) {
			objects = append(objects, extentVolume{v})
		}
	}
	for _, v := range s.Files() {
		objects = append(objects, extentVolume{v})
	}
	return objects
}

// NewDigest returns the digest of no bytes.
func (s ExtentStore) NewDigest() Digest { return s.Store.NewDigest() }

// CreateStage implements Store.
func (s ExtentStore) CreateStage(ctx context.Context, name string, size int64) (Object, error) {
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

// FilePrefix begins the name of a file where a name can be that of a volume or a file.
const FilePrefix = "file:"

// extentVolume is a *backstore.Volume as an Object.
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

// extentWatch is a *backstore.Watch as a Watch.
type extentWatch struct{ *backstore.Watch }

func (w extentWatch) Snapshot(ctx context.Context, ranges []blockdev.Range, recs func(uint64) []backstore.Record) (Snapshot, error) {
	snap, err := w.Watch.Snapshot(ctx, ranges, recs)
	if err != nil {
		return nil, err
	}
	return snap, nil
}

func (v extentVolume) Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error) {
	if foreign, ok := s.(Foreign); ok {
		return foreign.MapTo(ctx, v.Volume, dst, src, length)
	}
	snap, ok := s.(*backstore.Snapshot)
	if !ok {
		return 0, fmt.Errorf("%w: snapshot of another store", blockdev.ErrInvalid)
	}
	return v.Volume.Map(ctx, dst, snap, src, length)
}
