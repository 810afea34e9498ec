package extent

import (
	"errors"
	"fmt"

	"odx/backstore/meta"
)

// storedPages is how many pages a Stored keeps.
const storedPages = 256

// Stored reads the table as a checkpoint stored it. It is not safe for
// concurrent use.
type Stored struct {
	kv    meta.Reader
	unit  int
	pages map[uint64]*page
}

// NewStored returns the table stored in kv, with extents of up to unit blocks.
func NewStored(kv meta.Reader, unit int) *Stored {
	return &Stored{kv: kv, unit: unit, pages: make(map[uint64]*page)}
}

// References returns how many slots refer to an extent, and its length.
func (s *Stored) References(id ID) (refs uint64, blocks int, err error) {
	number := uint64(id) / pageExtents
	p := s.pages[number]
	if p == nil {
		value, err := s.kv.Get(pageKey(number))
		if errors.Is(err, meta.ErrNotFound) {
			return 0, 0, fmt.Errorf("%w: extent %d does not exist", ErrInconsistent, id)
		}
		if err != nil {
			return 0, 0, err
		}
		if p, err = decodePage(s.unit, value); err != nil {
			return 0, 0, err
		}
		if len(s.pages) == storedPages {
			clear(s.pages)
		}
		s.pages[number] = p
	}
	e := &p.entries[uint64(id)%pageExtents]
	if e.blocks == 0 {
		return 0, 0, fmt.Errorf("%w: extent %d does not exist", ErrInconsistent, id)
	}
	return e.refs, int(e.blocks), nil
}
