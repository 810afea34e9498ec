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
	// OnFull sets what is called when a write does not fit, with the bytes that
	// it needs: as long as it returns true, and the write still does not fit.
	OnFull(giveUp func(ctx context.Context, need int64) bool)
	// GetRecord returns backstore.ErrNotFound for an absent key.
	GetRecord(key []byte) ([]byte, error)
	// Space returns the address space with an ID; backstore.ErrNotFound when
	// there is none.
	Space(id [16]byte) (offload.AddressSpace, error)
	// Spaces returns all address spaces but stages, files last.
	Spaces() []offload.AddressSpace
	// NewDigest returns the digest of no bytes.
	NewDigest() offload.Digest
}
