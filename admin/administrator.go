package admin

import (
	"context"
	"errors"

	"odx/backstore"
)

// ErrNotRunning: no server has the store open.
var ErrNotRunning = errors.New("no odx serves this store")

// ErrInUse: the volume or the file is a LUN of the configuration, or below one.
var ErrInUse = errors.New("in use")

// Administrator is what can be asked of a store. Errors are ErrInUse and those of
// packages backstore, tokens and vhd; an implementation that asks a server returns
// ErrNotRunning when no server has the store open.
type Administrator interface {
	Offloader
	Filer
	Disker

	// Status describes what is served; ErrNotRunning where no server is.
	Status(ctx context.Context) (Status, error)

	// StoreInfo describes the store. It counts what volumes map, which takes longer
	// the more that is.
	StoreInfo(ctx context.Context) (StoreInfo, error)
	// Exclusive returns, by name of the volume, the bytes that nothing but that
	// volume refers to. It looks at all metadata.
	Exclusive(ctx context.Context) (map[string]int64, error)
	// Check proves references, segments and maps, while operations go on.
	Check(ctx context.Context) (CheckResult, error)
	// Scrub reads and verifies every extent. progress, which may be nil, is
	// called now and then. What was found before an error is returned with it by
	// a Store only.
	Scrub(ctx context.Context, r ScrubRequest, progress func(backstore.ScrubProgress)) (backstore.ScrubResult, error)
	// Clean gives the space of dead data back, as fast as the disk allows.
	Clean(ctx context.Context) (CleanResult, error)

	Volumes(ctx context.Context) ([]Volume, error)
	CreateVolume(ctx context.Context, name string, size int64) (Volume, error)
	// StartVolume makes a hidden volume, under a random name, that is to be called
	// name when it is whole. The caller finishes or deletes it; when the store is
	// served again, it is gone.
	StartVolume(ctx context.Context, name string, size int64) (Volume, error)
	// FinishVolume gives such a volume its name, in one step; backstore.ErrExists
	// where a volume has that name.
	FinishVolume(ctx context.Context, scratch, name string) (Volume, error)
	// ResizeVolume makes a volume larger.
	ResizeVolume(ctx context.Context, name string, size int64) (Volume, error)
	DeleteVolume(ctx context.Context, name string) error
	// SnapshotVolume makes a read-only volume that equals src as it is now.
	SnapshotVolume(ctx context.Context, src, name string) (Volume, error)
	// CloneVolume makes a volume that equals src as it is now.
	CloneVolume(ctx context.Context, src, name string) (Volume, error)
}
