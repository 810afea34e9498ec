package extent

import (
	"errors"

	"odx/backstore/meta"
	"odx/backstore/refs"
)

// storedPages is how many pages of each kind a Stored keeps.
const storedPages = 256

// Stored reads the table as a checkpoint stored it. It is not safe for
// concurrent use.
type Stored struct {
	kv     meta.Reader
	unit   int
	pages  map[uint64]*page
	counts map[uint64]*refs.Page
}

// NewStored returns the table stored in kv, with extents of up to unit blocks.
func NewStored(kv meta.Reader, unit int) *Stored {
	return &Stored{kv: kv, unit: unit, pages: make(map[uint64]*page), counts: make(map[uint64]*refs.Page)}
}

// References returns how many slots refer to an extent, and its length.
func (s *Stored) References(id ID) (n uint64, blocks int, err error) {
	p, err := kept(s.pages, uint64(id)/pageExtents, func() (*page, error) {
		value, err := s.kv.Get(pageKey(uint64(id) / pageExtents))
		if errors.Is(err, meta.ErrNotFound) {
			return newPage(s.unit), nil
		}
		if err != nil {
			return nil, err
		}
		return decodePage(s.unit, value)
	})
	if err != nil {
		return 0, 0, err
	}
	c, err := s.countsOf(id)
	if err != nil {
		return 0, 0, err
	}
	return references(id, p, c)
}

// countsOf returns the page with the count of an extent.
func (s *Stored) countsOf(id ID) (*refs.Page, error) {
	return kept(s.counts, uint64(id)/refs.PerPage, func() (*refs.Page, error) {
		return refs.Read(s.kv, countKind, uint64(id))
	})
}

// kept returns what a map of up to storedPages has for a number, or what read
// returns.
func kept[P any](known map[uint64]P, number uint64, read func() (P, error)) (P, error) {
	p, ok := known[number]
	if ok {
		return p, nil
	}
	p, err := read()
	if err != nil {
		return p, err
	}
	if len(known) == storedPages {
		clear(known)
	}
	known[number] = p
	return p, nil
}
