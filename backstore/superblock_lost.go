package backstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/layout"
	"odx/backstore/meta"
)

// A store that has lost both copies of its superblock can be read all the same: its id
// is in the header of each file, and the dedup unit is the one by which the maps name
// blocks that exist. What is lost is the key of the fingerprints, which only
// deduplication and hash tokens need, and the identity, if it ever was another one than
// the id. Such a store is only read: a repair gives it a superblock.

// rebuildSuperblock returns a superblock from the headers of the other files. Its dedup
// unit is 0, until findUnit knows it.
func (s *Store) rebuildSuperblock(lost *layout.LostError) (layout.Superblock, error) {
	sb, err := s.opts.dir().Rebuild(lost)
	if err != nil {
		return sb, err
	}
	s.reader.superblockLost = true
	s.damage.Note("superblock", fmt.Errorf("%w; it is made again from the other files of store %x: if odx store new-identity was run, initiators see its LUNs as other disks, and hash tokens end",
		lost, sb.ID))
	return sb, nil
}

// maxUnitSlots bounds how many blocks findUnit looks up.
const maxUnitSlots = 1 << 17

// findUnit finds the dedup unit by which the maps name blocks of extents that exist.
func (rc *recovery) findUnit(ctx context.Context) (unit int, err error) {
	f := unitFinder{kv: rc.parts.kv, wrong: make(map[int]int), pages: make(map[uint64]*[extent.PageExtents]uint8)}
	looking, stop := context.WithCancel(ctx)
	defer stop()
	var failed error
	err = blockmap.EachLeaf(looking, rc.parts.kv, func(slots []extent.Slot) {
		if failed = f.leaf(slots); failed != nil || f.looked >= maxUnitSlots {
			stop()
		}
	})
	if failed != nil {
		return 0, failed
	}
	if err = rc.life.tolerate("rows", err); err != nil && (ctx.Err() != nil || looking.Err() == nil) {
		return 0, err
	}
	if f.looked == 0 { // nothing is named by any unit
		return rc.opts.DedupUnit / BlockLength, nil
	}
	return f.best()
}

// unitFinder counts the slots that each unit has wrong.
type unitFinder struct {
	kv     meta.Reader
	looked int
	wrong  map[int]int // by unit
	pages  map[uint64]*[extent.PageExtents]uint8
}

// leaf looks up the slots of a leaf: of each run of consecutive ones the first, the last
// and one between.
func (f *unitFinder) leaf(slots []extent.Slot) error {
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

func (f *unitFinder) slot(slot extent.Slot) error {
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
func (f *unitFinder) page(number uint64) (*[extent.PageExtents]uint8, error) {
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
	case metadataDamage(err):
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
func (f *unitFinder) best() (int, error) {
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
		return 0, fmt.Errorf("%w: the superblock is lost, and the maps do not tell the dedup unit: %d of %d blocks fit with %d bytes, %d with %d bytes; restore %s from a copy",
			ErrCorrupt, f.looked-f.wrong[best], f.looked, best*BlockLength, f.looked-f.wrong[second], second*BlockLength, layout.SuperblockName)
	}
	return best, nil
}
