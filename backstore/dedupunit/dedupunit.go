// Package dedupunit finds the dedup unit of a store that has lost its superblock: the one
// by which the maps name blocks of extents that exist.
package dedupunit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/blockdev"
)

// maxSlots bounds how many blocks Find looks up.
const maxSlots = 1 << 17

// UnknownError says that the maps do not tell the unit.
type UnknownError struct {
	Blocks int // that were looked up
	// Best and Second are the units that fit most blocks, in blocks; BestFit and SecondFit
	// say how many.
	Best, BestFit     int
	Second, SecondFit int
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("the maps do not tell the dedup unit: %d of %d blocks fit with %d bytes, %d with %d bytes",
		e.BestFit, e.Blocks, e.Best*blockdev.BlockLength, e.SecondFit, e.Second*blockdev.BlockLength)
}

// Find returns the unit in blocks, 0 where the maps name no block. tolerate decides whether
// to go on with the rows before one that cannot be read: it returns nil, or the error.
func Find(ctx context.Context, kv meta.Reader, tolerate func(error) error) (unit int, err error) {
	f := finder{kv: kv, wrong: make(map[int]int), pages: make(map[uint64]*[extent.PageExtents]uint8)}
	looking, stop := context.WithCancel(ctx)
	defer stop()
	var failed error
	err = blockmap.EachLeaf(looking, kv, func(slots []extent.Slot) {
		if failed = f.leaf(slots); failed != nil || f.looked >= maxSlots {
			stop()
		}
	})
	if failed != nil {
		return 0, failed
	}
	if err = tolerate(err); err != nil && (ctx.Err() != nil || looking.Err() == nil) {
		return 0, err
	}
	if f.looked == 0 {
		return 0, nil
	}
	return f.best()
}

// finder counts the slots that each unit has wrong.
type finder struct {
	kv     meta.Reader
	looked int
	wrong  map[int]int // by unit
	pages  map[uint64]*[extent.PageExtents]uint8
}

// leaf looks up the slots of a leaf: of each run of consecutive ones the first, the last
// and one between.
func (f *finder) leaf(slots []extent.Slot) error {
	for from := 0; from < len(slots); {
		to := from + 1
		for to < len(slots) && slots[to] == slots[to-1]+1 {
			to++
		}
		if slots[from] != 0 {
			for _, at := range []int{from, (from + to) / 2, to - 1} {
				if err := f.slot(slots[min(at, to-1)]); err != nil {
					return err
				}
			}
		}
		from = to
	}
	return nil
}

func (f *finder) slot(slot extent.Slot) error {
	f.looked++
	for unit := 1; unit <= extent.MaxUnit; unit *= 2 {
		id, block := uint64(slot)/uint64(unit), uint64(slot)%uint64(unit)
		page, err := f.page(id / extent.PageExtents)
		if err != nil {
			return err
		}
		if page != nil && block >= uint64(page[id%extent.PageExtents]) {
			f.wrong[unit]++
		}
	}
	return nil
}

// page returns the lengths of a page of extents, nil if they are not known.
func (f *finder) page(number uint64) (*[extent.PageExtents]uint8, error) {
	if page, ok := f.pages[number]; ok {
		return page, nil
	}
	if len(f.pages) > 1<<12 {
		clear(f.pages)
	}
	page := new([extent.PageExtents]uint8)
	row, err := f.kv.Get(binary.BigEndian.AppendUint64([]byte{extent.PagePrefix}, number))
	switch {
	case errors.Is(err, meta.ErrNotFound): // none exists
	case damaged(err):
		page = nil
	case err != nil:
		return nil, err
	default:
		if *page, err = extent.Lengths(row); err != nil {
			page = nil
		}
	}
	f.pages[number] = page
	return page, nil
}

// best returns the unit that is right for nearly all slots, if there is only one. Lost
// rows can make some wrong.
func (f *finder) best() (int, error) {
	best, second := 0, 0
	for unit := 1; unit <= extent.MaxUnit; unit *= 2 {
		switch {
		case best == 0 || f.wrong[unit] < f.wrong[best]:
			best, second = unit, best
		case second == 0 || f.wrong[unit] < f.wrong[second]:
			second = unit
		}
	}
	if f.wrong[best] >= f.looked/2 || f.wrong[second] <= 2*f.wrong[best] {
		return 0, &UnknownError{Blocks: f.looked, Best: best, BestFit: f.looked - f.wrong[best], Second: second, SecondFit: f.looked - f.wrong[second]}
	}
	return best, nil
}

// damaged reports whether err means that a row cannot be read right.
func damaged(err error) bool {
	return errors.Is(err, meta.ErrDamaged) || errors.Is(err, extent.ErrInconsistent)
}
