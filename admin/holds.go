package admin

import (
	"context"
	"encoding/hex"
	"fmt"

	"odx/backstore"
)

// StoreHold is what another store of the pool holds of this one, because data of it lies in
// segments here.
type StoreHold struct {
	Store    string // its ID, in hexadecimal
	Segments int
	Bytes    int64 // length of the segments
}

// Holder knows what other stores hold.
type Holder interface {
	// StoreHolds lists the stores that hold segments.
	StoreHolds(ctx context.Context) ([]StoreHold, error)
	// EndStoreHolds ends all holds of a store that does not come back, and returns how many
	// segments they were on. What that store has here is lost to it then.
	EndStoreHolds(ctx context.Context, store string) (segments int, err error)
}

// StoreHolds implements Holder.
func (s *Store) StoreHolds(context.Context) ([]StoreHold, error) {
	list := []StoreHold{}
	for _, h := range s.store.HeldBy() {
		list = append(list, StoreHold{Store: hex.EncodeToString(h.Taker[:]), Segments: h.Segments, Bytes: h.Bytes})
	}
	return list, nil
}

// EndStoreHolds implements Holder.
func (s *Store) EndStoreHolds(ctx context.Context, store string) (int, error) {
	id, err := hex.DecodeString(store)
	if err != nil || len(id) != 16 {
		return 0, fmt.Errorf("%w: %.40q is no ID of a store; use 32 hexadecimal digits", backstore.ErrInvalid, store)
	}
	return s.store.EndHolds(ctx, [16]byte(id))
}

// unheld returns what of this store is not known to be held in others.
func (s *Store) unheld(ctx context.Context) ([]string, error) {
	if s.server != nil {
		return s.server.Unheld(ctx)
	}
	var list []string
	for _, maker := range s.store.Makers() {
		list = append(list, fmt.Sprintf("data lies in segments of store %x: whether they are held can be found out while this store is served", maker))
	}
	return list, nil
}
