// Package api is the HTTP+JSON interface of a running server and its Go client.
//
// The server listens on a Unix socket in the folder of its store, so that
// whoever may open the store may ask about it, and nobody else. Times are
// RFC 3339, sizes are bytes, identifiers are hexadecimal. An error is a JSON
// object with the key "error" and a status code that is not 2xx.
//
//	GET /v1/store    Store: volumes, bytes, deduplication and tokens
package api

import (
	"context"
	"fmt"

	"odx/backstore"
	"odx/tokens"
)

// Store describes an extent store: its figures, and its tokens.
type Store struct {
	// ID is the random number that the store was made with, in hexadecimal.
	ID string `json:"id"`
	backstore.Stats
	Tokens Tokens `json:"tokens"`
}

// Tokens sums up the live tokens.
type Tokens struct {
	Count int `json:"count"`
	// PinnedBytes is what they represent, together.
	PinnedBytes int64 `json:"pinned_bytes"`
}

// Describe describes an open store and its tokens. It counts what volumes map,
// which takes longer the more that is.
func Describe(ctx context.Context, s *backstore.Store, m *tokens.Manager) (Store, error) {
	stats, err := s.Stats(ctx)
	if err != nil {
		return Store{}, err
	}
	if stats.Volumes == nil {
		stats.Volumes = []backstore.VolumeStats{} // [] in JSON
	}
	ts := m.Stats()
	return Store{
		ID:     fmt.Sprintf("%x", s.ID()),
		Stats:  stats,
		Tokens: Tokens{Count: ts.Live, PinnedBytes: ts.PinnedBytes},
	}, nil
}
