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

// Administrator is the interface of the administration of a store. Errors are ErrInUse
// and those of packages backstore, tokens and vhd; an implementation that calls a
// server returns ErrNotRunning when no server has the store open.
type Administrator interface {
	Offloader
	Filer
	Disker
	Peerer
	Holder

	// Status describes what is served; ErrNotRunning where no server is.
	Status(ctx context.Context) (Status, error)

	// StoreInfo describes the store. It counts the mapped data of all volumes, which
	// takes time in proportion.
	StoreInfo(ctx context.Context) (StoreInfo, error)
	// Exclusive returns, by name of the volume, or of the file with FilePrefix, the bytes
	// that only that object refers to. It reads all metadata.
	Exclusive(ctx context.Context) (map[string]int64, error)
	// Check proves references, segments and maps, concurrently with other operations.
	Check(ctx context.Context) (CheckResult, error)
	// Scrub reads and verifies every extent. progress, which may be nil, is called
	// about once a second. With an error, only a Store returns what it found before.
	Scrub(ctx context.Context, r ScrubRequest, progress func(backstore.ScrubProgress)) (backstore.ScrubResult, error)
	// Clean reclaims the space of dead data, as fast as the disk allows.
	Clean(ctx context.Context) (CleanResult, error)

	Volumes(ctx context.Context) ([]Volume, error)
	CreateVolume(ctx context.Context, name string, size int64) (Volume, error)
	// StartVolume creates a hidden volume under a random name, which FinishVolume
	// renames to name when it is complete. The caller finishes or deletes it; otherwise
	// the next server of the store removes it.
	StartVolume(ctx context.Context, name string, size int64) (Volume, error)
	// FinishVolume renames such a volume, in one step; backstore.ErrExists if a volume
	// has the name.
	FinishVolume(ctx context.Context, scratch, name string) (Volume, error)
	// ResizeVolume grows a volume.
	ResizeVolume(ctx context.Context, name string, size int64) (Volume, error)
	DeleteVolume(ctx context.Context, name string) error
	// RenameVolume gives a volume that is no LUN of the configuration another name.
	RenameVolume(ctx context.Context, old, name string) (Volume, error)
	// RevertVolume gives a volume the content of a snapshot; ErrLoggedIn if initiators are
	// logged in to it, and the request has no Force.
	RevertVolume(ctx context.Context, r RevertRequest) (Volume, error)
	// Diff calls found with the ranges in which a volume may differ from another one, or
	// that are allocated, in order, some hundred at a time; found must not keep them. Both
	// are compared as they are when it begins. It ends with an error of found.
	Diff(ctx context.Context, r DiffRequest, found func([]DiffRange) error) (Diff, error)
	// SnapshotVolume creates a read-only volume that equals src as it is now.
	SnapshotVolume(ctx context.Context, src, name string) (Volume, error)
	// CloneVolume creates a volume that equals src as it is now.
	CloneVolume(ctx context.Context, src, name string) (Volume, error)
}
