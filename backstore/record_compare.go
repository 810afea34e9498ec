package backstore

import (
	"context"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/journal"
)

// A comparison goes through the records of a journal where the row that says which of
// them the other rows have is lost. None is replayed. A block is read if the map has
// for it what the last record that changes it says, slot by slot: the number of an
// extent is never used again. Every other block that a record changes is stale.
// Numbers of volumes and snapshots are not used again either, so what is deleted,
// renamed or given a size can be so once more.
//
// Where the journal lacks records, names and sizes stay those of the rows.
type comparison struct {
	s     *Store
	whole bool
}

// comparer is a record that a comparison can prove to be in the rows.
type comparer interface {
	// compare reports whether the rows have what the record changes.
	compare(s *Store) bool
}

// compareJournal finds what the records of the journal changed that the rows do not
// have.
func (s *Store) compareJournal(ctx context.Context) error {
	c := comparison{s: s, whole: true}
	next := journal.LSN(0)
	_, err := journal.Read(ctx, s.journalOptions(1), func(rec journal.Record) error {
		_, err := decodeRecord(rec.Payload, s.sb.Unit)
		c.whole = c.whole && err == nil && (next == 0 || rec.LSN == next)
		next = rec.LSN + 1
		return nil
	})
	if err == nil {
		_, err = journal.Read(ctx, s.journalOptions(1), func(rec journal.Record) error {
			if !c.has(rec) {
				s.noteUnused(rec)
			}
			return nil
		})
	}
	for _, v := range s.volumes {
		s.byName[v.key()] = v // an older record can have given the name to another
	}
	return s.tolerate("journal", err)
}

// has reports whether the rows have what a record changes.
func (c *comparison) has(rec journal.Record) bool {
	one, err := decodeRecord(rec.Payload, c.s.sb.Unit)
	if err != nil {
		return false
	}
	switch one.(type) {
	case *writeRecord, *clearRecord, *mapRecord:
	default:
		if !c.whole {
			return false
		}
	}
	r, ok := one.(comparer)
	return ok && r.compare(c.s)
}

// setStale makes a block of a volume stale, or not.
func (v *Volume) setStale(block uint64, stale bool) bool {
	if stale {
		v.stale.add(block, block+1)
	} else {
		v.stale.remove(block, block+1)
	}
	return !stale
}

func (r *writeRecord) compare(s *Store) bool {
	v := s.volumes[r.volume]
	if v == nil {
		return false
	}
	return v.compareSlots(s, r.block, r.slots[:r.blocks])
}

// compareSlots compares slots with those of a volume, from a block on.
func (v *Volume) compareSlots(s *Store, block uint64, want []extent.Slot) bool {
	has := true
	for i, slot := range want {
		var now [1]extent.Slot
		err := s.forest.Lookup(v.root, block+uint64(i), now[:])
		has = v.setStale(block+uint64(i), err != nil || now[0] != slot) && has
	}
	return has
}

func (r *clearRecord) compare(s *Store) bool {
	v := s.volumes[r.volume]
	return v != nil && v.compareHoles(s, r.first, r.count)
}

// compareHoles has what is mapped of some blocks be stale.
func (v *Volume) compareHoles(s *Store, first, count uint64) bool {
	has, end := true, first+count
	for first < end {
		next, err := s.forest.Runs(v.root, first, end-first, extentsStep, func(r blockmap.Run) bool {
			has = has && !r.Mapped
			if r.Mapped {
				v.stale.add(r.First, r.First+r.Count)
			} else {
				v.stale.remove(r.First, r.First+r.Count)
			}
			return true
		})
		if err != nil {
			v.stale.add(next, end)
			return false
		}
		first = next
	}
	return has
}

func (r *mapRecord) compare(s *Store) bool {
	v, st := s.volumes[r.volume], s.snapshots[r.snapshot]
	if v == nil {
		return false
	}
	if st == nil || inTree(v.root, r.to, r.count) != nil || inTree(st.root, r.from, r.count) != nil {
		v.stale.add(r.to, r.to+r.count)
		return false
	}
	has := true
	for at := uint64(0); at < r.count; at += readBatch {
		var slots [readBatch]extent.Slot
		n := min(readBatch, r.count-at)
		if err := s.forest.Lookup(st.root, r.from+at, slots[:n]); err != nil {
			v.stale.add(r.to+at, r.to+at+n)
			has = false
			continue
		}
		has = v.compareSlots(s, r.to+at, slots[:n]) && has
	}
	return has
}

func (r *snapshotRecord) compare(s *Store) bool {
	there := s.snapshots[r.id] != nil
	if there {
		s.putRecords(r.records)
	}
	return there
}

func (r *deleteSnapshotRecord) compare(s *Store) bool {
	return r.salvage(s) == nil
}

func (r *recordsRecord) compare(s *Store) bool {
	s.putRecords(r.records)
	return true
}

func (r *createVolumeRecord) compare(s *Store) bool { return s.volumes[r.row.Number] != nil }

func (r *cloneVolumeRecord) compare(s *Store) bool { return s.volumes[r.number] != nil }

func (r *deleteVolumeRecord) compare(s *Store) bool { return r.salvage(s) == nil }

// compare sets the size; what was cut off is stale where it is mapped.
func (r *resizeVolumeRecord) compare(s *Store) bool {
	v := s.volumes[r.volume]
	if v == nil || v.checkNewSize(r.size) != nil {
		return false
	}
	blocks := uint64((r.size + BlockLength - 1) / BlockLength)
	has := v.size == r.size
	if blocks < v.root.Blocks() {
		has = v.compareHoles(s, blocks, v.root.Blocks()-blocks) && has
	}
	s.forest.Grow(&v.root, blocks)
	v.size = r.size
	return has
}

func (r *renameFileRecord) compare(s *Store) bool { return r.salvage(s) == nil }

// compare gives the file its name once more; a later record can have given it another.
func (r *replaceFilesRecord) compare(s *Store) bool { return r.salvage(s) == nil }
