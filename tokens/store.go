package tokens

import (
	"context"

	"odx/backstore"
	"odx/offload"
)

// Store is what the manager needs of the extent store: snapshots, and records
// that change in one step with them. offload.ExtentStore makes one of a
// *backstore.Store.
type Store interface {
	offload.Store
	// ID is permanent and differs between any two stores.
	ID() [16]byte
	// Flush makes everything that returned before it durable.
	Flush(ctx context.Context) error
	// Snapshot opens a handle; backstore.ErrNotFound when there is none.
	Snapshot(id uint64) (offload.Snapshot, error)
	// HeldBytes measures what the snapshots keep alive that nothing else refers
	// to.
	HeldBytes(ctx context.Context, snapshots []uint64) (backstore.Held, error)
	// OnFull sets the function that a write which does not fit calls with the bytes
	// that it needs, for as long as the function returns true and the write still does
	// not fit.
	OnFull(makeRoom func(ctx context.Context, need int64) bool)
	// GetRecord returns backstore.ErrNotFound for an absent key.
	GetRecord(key []byte) ([]byte, error)
	// ObjectByID returns the object with an ID; backstore.ErrNotFound when there is
	// none.
	ObjectByID(id [16]byte) (offload.Object, error)
	// Objects returns all objects but stages, files last.
	Objects() []offload.Object
	// NewDigest returns the digest of no bytes.
	NewDigest() offload.Digest
}
