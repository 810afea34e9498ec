package backstore

import (
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"odx/backstore/segment"
)

// Stores of one pool can have extents in segments of each other. A copy from one to the other
// then moves no data: the one that has it (the maker) holds its segments, durably, and the other
// one (the taker) adopts the extents where they lie, in aliases of the segments.
//
// A segment is needed by an alias from when the taker's record of the alias may be durable until
// a checkpoint of the taker has stored that it is gone. The hold covers that:
//
//	maker: hold durable, data synced → answer → taker: record of the alias, writes → answer
//	taker: checkpoint without the alias durable → claim without the segment → maker: hold ends
//
// A crash between two steps leaves at most a hold that nothing needs, which the next claim ends.
// Messages can be late, from processes that are gone too: each has a stamp, and a claim ends no
// hold that has a later one (see Stamp).

// Siblings reaches the files of other stores in the pool of this one.
type Siblings interface {
	// Place returns where in the pool the files of this store are.
	Place() string
	// Open opens a file of the store in another place to read it; fs.ErrNotExist. It may go by
	// names that were read before.
	Open(place, name string) (segment.File, error)
	// Forget has Open read the names in a place again: a file was not the one that it should be, as
	// where the store was deleted, and made again.
	Forget(place string)
}

// ErrNoAdoption: two stores cannot have extents of each other: they are in different pools, find
// equal data by different keys or dedup units, or one of them is in none.
var ErrNoAdoption = errors.New("extents cannot be adopted")

// Stamp orders what a taker asks of a maker. The epoch is that of the taker's owner, so that what
// an earlier owner has sent counts as earlier, whenever it arrives.
type Stamp struct{ Epoch, Seq uint64 }

// after reports whether s is later than o.
func (s Stamp) after(o Stamp) bool {
	return s.Epoch > o.Epoch || s.Epoch == o.Epoch && s.Seq > o.Seq
}

// Terms are what a maker has to know of a taker.
type Terms struct {
	Store [16]byte // identity of the taker
	Pool  [16]byte // of the cluster and the pool
	Proof [32]byte // that it has the same key and dedup unit
	Stamp Stamp
}

// terms returns the terms of this store, without a stamp, or ErrNoAdoption.
func (s *Store) terms() (t Terms, err error) {
	switch {
	case s.opts.Siblings == nil:
		return t, fmt.Errorf("%w: the store is in no pool", ErrNoAdoption)
	case s.reader.superblockLost:
		return t, fmt.Errorf("%w: the key of the store was lost", ErrNoAdoption)
	case s.parts.sb.ID != s.parts.sb.Identity:
		return t, fmt.Errorf("%w: the store is a copy", ErrNoAdoption)
	case s.opts.ReadOnly:
		return t, fmt.Errorf("%w: %w", ErrNoAdoption, ErrStoreReadOnly)
	}
	place, err := s.opts.FS.Place(s.opts.Dir)
	if err != nil {
		return t, err
	}
	t.Store, t.Pool = s.ID(), place.FileSystem
	secret := append(s.parts.sb.FingerprintKey[:len(s.parts.sb.FingerprintKey):len(s.parts.sb.FingerprintKey)], byte(s.parts.sb.Unit))
	blake3.DeriveKey("odx 2026-12-01 stores that adopt extents of each other", secret, t.Proof[:])
	return t, nil
}

// checkTerms returns ErrNoAdoption unless a store with these terms can have extents of this one.
func (s *Store) checkTerms(t Terms) error {
	own, err := s.terms()
	switch {
	case err != nil:
		return err
	case t.Store == own.Store:
		return fmt.Errorf("%w: by the same store", ErrNoAdoption)
	case t.Pool != own.Pool:
		return fmt.Errorf("%w: the other store is in another pool", ErrNoAdoption)
	case subtle.ConstantTimeCompare(t.Proof[:], own.Proof[:]) != 1:
		return fmt.Errorf("%w: the other store has another key or dedup unit", ErrNoAdoption)
	}
	return nil
}

// share has programs that know of no aliases and holds refuse the store, durably: they would
// remove what is needed.
func (s *Store) share() error {
	s.sharing.Lock()
	defer s.sharing.Unlock()
	if s.parts.sb.Shared {
		return nil
	}
	sb := s.parts.sb
	sb.Shared = true
	sb.Generation++
	if err := sb.WriteBoth(s.opts.FS, s.opts.Dir); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	s.parts.sb.Shared, s.parts.sb.Generation = true, sb.Generation
	return nil
}
