// Package api is what an administrator can ask of a store: an interface with
// two implementations. Local does it on a store that this process has open;
// Client asks the server of the store, over HTTP+JSON, where Server answers with
// a Local of its own. So both do the same.
//
// The server listens on a Unix socket in the folder of its store: whoever may
// open the store may ask about it, and nobody else. Times are RFC 3339, sizes
// are bytes, identifiers are hexadecimal. Parameters are a JSON object in the
// body; unknown keys are refused. The table in routes.go lists every request.
//
// An error is a JSON object with a kind, for programs, and a text in "error",
// for people, under a status code that is not 2xx. A long operation that tells
// its progress answers with lines of JSON: {"progress": …}, any number of them,
// then {"result": …} or an error.
package api

import (
	"context"

	"odx/backstore"
	"odx/target"
)

// Administrator is what can be asked of a store. Errors are those of package
// backstore and target.ErrInUse; a Client returns ErrNotRunning when nobody
// serves the store.
type Administrator interface {
	Offloader
	Filer
	Disker

	// Status describes what is served; ErrNotRunning where no server is.
	Status(ctx context.Context) (Status, error)

	// Store describes the store. It counts what volumes map, which takes longer
	// the more that is.
	Store(ctx context.Context) (Store, error)
	// Exclusive returns, by name of the volume, the bytes that nothing but that
	// volume refers to. It looks at all metadata.
	Exclusive(ctx context.Context) (map[string]int64, error)
	// Check proves references, segments and maps. Operations go on meanwhile.
	Check(ctx context.Context) (CheckResult, error)
	// Scrub reads and verifies every extent. progress, which may be nil, is
	// called now and then. What was found before an error is returned with it by
	// a Local only.
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

// Store describes an extent store: its figures, and its tokens.
type Store struct {
	// ID is the random number that the store was made with, in hexadecimal.
	ID string `json:"id"`
	backstore.Stats
	target.Capacity
	Tokens Tokens `json:"tokens"`
	// Scrub is what the last scrub has found; its Ended is zero when there was none.
	Scrub backstore.LastScrub `json:"scrub"`
	// Damage is what was found damaged since the store was opened, at most 100
	// things, and MoreDamage how many are not in it.
	Damage     []backstore.Damaged `json:"damage"`
	MoreDamage int                 `json:"more_damage,omitempty"`
	// Moved: the store is not where its superblock says; it may be a copy.
	Moved bool `json:"moved,omitempty"`
}

// Tokens sums up the live tokens.
type Tokens struct {
	Count int `json:"count"`
	// PinnedBytes is what they represent, together.
	PinnedBytes int64 `json:"pinned_bytes"`
}

// Volume describes a volume.
type Volume = target.Volume

// CheckResult is what a check found.
type CheckResult struct {
	Sound bool `json:"sound"`
	// Findings says what is wrong, in words; the last one counts those beyond
	// 1000.
	Findings []string `json:"findings"`
}

// ScrubRequest says how to scrub.
type ScrubRequest struct {
	// BytesPerSecond bounds what is read; 0: as fast as the disk allows.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
}

// CleanResult says what cleaning did.
type CleanResult struct {
	// FreedBytes is how much shorter the segments are. Writes that came
	// meanwhile make it smaller, below zero too.
	FreedBytes int64 `json:"freed_bytes"`
	// PhysicalBytes is the length of the segments afterwards.
	PhysicalBytes int64 `json:"physical_bytes"`
}
