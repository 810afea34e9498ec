package extent

import (
	"errors"

	"odx/backstore/meta"
	"odx/backstore/refs"
	"odx/backstore/segment"
)

// storedPages is the number of pages of each kind that a Stored caches.
const storedPages = 256

// Stored reads the table of the last checkpoint. It is not safe for concurrent use.
type Stored struct {
	kv     meta.Reader
	unit   int
	pages  map[uint64]*page
	counts map[uint64]*refs.Page
}

// NewStored returns the table stored in kv, whose full extents have unit blocks.
func NewStored(kv meta.Reader, unit int) *Stored {
	return &Stored{kv: kv, unit: unit, pages: make(map[uint64]*page), counts: make(map[uint64]*refs.Page)}
}

// References returns the number of slots that refer to an extent, and its length in
// blocks.
func (s *Stored) References(id ID) (n uint64, blocks int, err error) {
	p, err := s.page(id)
	if err != nil {
		return 0, 0, err
	}
	c, err := s.countsOf(id)
	if err != nil {
		return 0, 0, err
	}
	return references(id, p, c)
}

// Segment returns the segment that an extent lies in, 0 if there is no such extent.
func (s *Stored) Segment(id ID) (segment.ID, error) {
	p, err := s.page(id)
	if err != nil {
		return 0, err
	}
	return p.entry(id).addr.Segment, nil
}

// page returns the page with the place of an extent.
func (s *Stored) page(id ID) (*page, error) {
	return cached(s.pages, uint64(id)/pageExtents, func() (*page, error) {
		value, err := s.kv.Get(pageKey(uint64(id) / pageExtents))
		if errors.Is(err, meta.ErrNotFound) {
			return newPage(s.unit), nil
		}
		if err != nil {
			return nil, err
		}
		return decodePage(s.unit, value)
	})
}

// countsOf returns the page with the count of an extent.
func (s *Stored) countsOf(id ID) (*refs.Page, error) {
	return cached(s.counts, uint64(id)/refs.PerPage, func() (*refs.Page, error) {
		return refs.Read(s.kv, countKind, uint64(id))
	})
}

// cached returns known[number], or calls read and adds the result. known holds up to
// storedPages.
func cached[P any](known map[uint64]P, number uint64, read func() (P, error)) (P, error) {
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
