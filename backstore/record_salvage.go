package backstore

import (
	"errors"
	"fmt"

	"odx/backstore/journal"
)

// A salvage replays a journal on rows of which some are lost. A record that can be
// applied is: what it leaves is right whatever was there before. Blocks that a record
// changes which cannot be are stale, and so are copies of them, until a later record
// that can be applied sets them.
type salvage struct {
	s     *Store
	ended bool
}

// salvager is a record that reads what may be lost. apply stands for it in other kinds.
type salvager interface {
	// salvage applies the record to what is left, or returns why it cannot: what it
	// was to change is stale then.
	salvage(s *Store) error
}

// redo applies a record. Behind one that cannot be decoded none is: what it changes is
// not known.
func (r *salvage) redo(rec journal.Record) error {
	if r.ended {
		r.s.noteUnused(rec)
		return nil
	}
	one, err := r.s.readRecord(rec)
	switch change, ok := one.(salvager); {
	case errors.Is(err, journal.ErrCut):
		return fmt.Errorf("journal record %d: %w", rec.LSN, err)
	case err != nil:
		r.ended = true
		r.s.noteDamage(fmt.Sprintf("journal from record %d on", rec.LSN), err)
	case ok:
		err = change.salvage(r.s)
	default:
		err = one.apply(r.s)
	}
	if err != nil {
		r.s.noteUnused(rec)
	}
	if err != nil && !r.ended {
		r.s.noteDamage(fmt.Sprintf("journal record %d", rec.LSN), err)
	}
	if !r.ended {
		r.s.redone = rec.LSN
	}
	return nil
}

// salvageBlocks applies a record that sets blocks of a volume. touch reads what it
// needs first.
func (s *Store) salvageBlocks(r record, number, first, count uint64, touch func(v *Volume) error) error {
	v, err := s.volumeNumber(number)
	if err != nil {
		return err
	}
	if err = inTree(v.root, first, count); err == nil {
		err = touch(v)
	}
	if err == nil {
		err = r.apply(s)
	}
	if err != nil {
		v.stale.add(first, first+count)
		return err
	}
	v.stale.remove(first, first+count)
	return nil
}

func (r *writeRecord) salvage(s *Store) error {
	return s.salvageBlocks(r, r.volume, r.block, uint64(r.blocks), func(v *Volume) error { return s.touchWrite(v, r) })
}

func (r *clearRecord) salvage(s *Store) error {
	return s.salvageBlocks(r, r.volume, r.first, r.count, func(v *Volume) error {
		return s.forest.TouchClear(v.root, r.first, r.count)
	})
}

// salvage has blocks that are stale in the snapshot be stale in the volume. Each step
// of a copy reads what it needs first.
func (r *mapRecord) salvage(s *Store) error {
	err := s.salvageBlocks(r, r.volume, r.to, r.count, func(*Volume) error { return nil })
	if err == nil {
		s.volumes[r.volume].stale.copyFrom(&s.snapshots[r.snapshot].stale, r.to, r.from, r.count)
	}
	return err
}

func (r *snapshotRecord) salvage(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err == nil {
		err = s.forest.TouchShare(v.root, blockRanges(r.ranges))
	}
	if err == nil {
		err = r.apply(s)
	}
	if err == nil {
		s.snapshots[r.id].stale = v.stale.clone()
	}
	return err
}

// salvage puts the records also where the snapshot is lost: it is no more either way.
func (r *deleteSnapshotRecord) salvage(s *Store) error {
	if s.snapshots[r.id] == nil {
		s.changedSnaps[r.id] = true
		s.putRecords(r.records)
		return nil
	}
	return r.apply(s)
}

// salvage deletes also a volume whose row is lost.
func (r *deleteVolumeRecord) salvage(s *Store) error {
	if s.volumes[r.volume] == nil {
		s.deletedVols[r.volume] = true
		return nil
	}
	return r.apply(s)
}

// salvage sets the size also where the map of what is cut off cannot be read: that is
// stale, should the file grow again.
func (r *resizeVolumeRecord) salvage(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	if err := v.checkNewSize(r.size); err != nil {
		return err
	}
	shrinks, blocks := r.size < v.size, uint64((r.size+BlockLength-1)/BlockLength)
	if err = v.resize(r.size); err != nil {
		v.stale.add(blocks, maxBlocks)
		s.forest.Grow(&v.root, blocks)
		v.size = r.size
	} else if shrinks {
		v.stale.remove(blocks, maxBlocks)
	}
	return err
}

func (r *cloneVolumeRecord) salvage(s *Store) error {
	from, err := s.volumeNumber(r.from)
	if err == nil {
		err = s.forest.TouchDrop(from.root)
	}
	if err == nil {
		err = r.apply(s)
	}
	if err == nil {
		s.volumes[r.number].stale = from.stale.clone()
	}
	return err
}

func (r *renameFileRecord) salvage(s *Store) error {
	if _, err := s.volumeNumber(r.file); err != nil {
		return err
	}
	return r.apply(s)
}

// salvage deletes what the record deletes, also where the row of that, or of the file
// that gets the name, is lost.
func (r *replaceFilesRecord) salvage(s *Store) error {
	var there []uint64
	for _, number := range r.gone {
		if s.volumes[number] == nil {
			s.deletedVols[number] = true
			continue
		}
		there = append(there, number)
	}
	if _, err := s.volumeNumber(r.file); err != nil {
		for _, number := range there {
			if derr := s.removeVolume(s.volumes[number]); derr != nil {
				return derr
			}
		}
		return err
	}
	left := replaceFilesRecord{file: r.file, to: r.to, gone: there}
	return left.apply(s)
}
