package backstore

import (
	"context"
	"errors"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/record"
)

// A comparison goes through the records of a journal where the row that says which of
// them the other rows have is lost. None is replayed. A block is read if the map has
// for it what the last record that changes it says, slot by slot: the number of an
// extent is never used again. Every other block that a record changes is stale.
// Numbers of volumes and snapshots are not used again either, so what is deleted,
// renamed or given a size can be so once more, as in a salvage.
//
// Where the journal lacks records, names and sizes stay those of the rows.
type comparison struct {
	salvage
	whole bool
}

// errNotInRows: the rows do not have what a record changes.
var errNotInRows = errors.New("the rows do not have it")

// inRows returns errNotInRows if the rows do not have something.
func inRows(has bool) error {
	if has {
		return nil
	}
	return errNotInRows
}

// compareJournal finds what the records of the journal changed that the rows do not
// have.
func (s *Store) compareJournal(ctx context.Context) error {
	c := comparison{salvage: salvage{replay: replay{s}}, whole: true}
	next := journal.LSN(0)
	_, err := journal.Read(ctx, s.journalOptions(1), func(rec journal.Record) error {
		_, err := record.Decode(rec.Payload, s.parts.sb.Unit)
		c.whole = c.whole && err == nil && (next == 0 || rec.LSN == next)
		next = rec.LSN + 1
		return nil
	})
	if err == nil {
		_, err = journal.Read(ctx, s.journalOptions(1), func(rec journal.Record) error {
			if !c.has(rec) {
				s.recovery.noteUnused(rec)
			}
			return nil
		})
	}
	for _, v := range s.catalog.volumes {
		s.catalog.byName[v.key()] = v // an older record can have given the name to another
	}
	return s.life.tolerate("journal", err)
}

// has reports whether the rows have what a record changes.
func (c *comparison) has(rec journal.Record) bool {
	one, err := record.Decode(rec.Payload, c.s.parts.sb.Unit)
	if err != nil {
		return false
	}
	switch one.(type) {
	case *record.Write, *record.Clear, *record.Map:
	default:
		if !c.whole {
			return false
		}
	}
	return one.Apply(c) == nil
}

// setStale makes a block of a volume stale, or not.
func (v *Volume) setStale(block uint64, stale bool) bool {
	if stale {
		v.stale.Add(block, block+1)
	} else {
		v.stale.Remove(block, block+1)
	}
	return !stale
}

func (c *comparison) Write(r *record.Write) error {
	v, err := c.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	return inRows(c.slots(v, r.Block, r.Slots[:r.Blocks]))
}

// slots compares slots with those of a volume, from a block on.
func (c *comparison) slots(v *Volume, block uint64, want []extent.Slot) bool {
	has := true
	for i, slot := range want {
		var now [1]extent.Slot
		err := c.s.parts.forest.Lookup(v.root, block+uint64(i), now[:])
		has = v.setStale(block+uint64(i), err != nil || now[0] != slot) && has
	}
	return has
}

func (c *comparison) Clear(r *record.Clear) error {
	v, err := c.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	return inRows(c.holes(v, r.First, r.Count))
}

// holes has what is mapped of some blocks be stale.
func (c *comparison) holes(v *Volume, first, count uint64) bool {
	has, end := true, first+count
	for first < end {
		next, err := c.s.parts.forest.Runs(v.root, first, end-first, extentsStep, func(r blockmap.Run) bool {
			has = has && !r.Mapped
			if r.Mapped {
				v.stale.Add(r.First, r.First+r.Count)
			} else {
				v.stale.Remove(r.First, r.First+r.Count)
			}
			return true
		})
		if err != nil {
			v.stale.Add(next, end)
			return false
		}
		first = next
	}
	return has
}

func (c *comparison) Map(r *record.Map) error {
	v, err := c.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	st := c.s.catalog.snapshots[r.Snapshot]
	if st == nil || inTree(v.root, r.To, r.Count) != nil || inTree(st.root, r.From, r.Count) != nil {
		v.stale.Add(r.To, r.To+r.Count)
		return errNotInRows
	}
	has := true
	for at := uint64(0); at < r.Count; at += readBatch {
		var slots [readBatch]extent.Slot
		n := min(readBatch, r.Count-at)
		if err := c.s.parts.forest.Lookup(st.root, r.From+at, slots[:n]); err != nil {
			v.stale.Add(r.To+at, r.To+at+n)
			has = false
			continue
		}
		has = c.slots(v, r.To+at, slots[:n]) && has
	}
	return inRows(has)
}

func (c *comparison) Snapshot(r *record.Snapshot) error {
	if _, err := c.s.catalog.snapshot(r.ID); err != nil {
		return err
	}
	c.s.records.put(r.Records)
	return nil
}

func (c *comparison) CreateVolume(r *record.CreateVolume) error {
	_, err := c.s.catalog.volume(r.Row.Number)
	return err
}

func (c *comparison) CloneVolume(r *record.CloneVolume) error {
	_, err := c.s.catalog.volume(r.Number)
	return err
}

// ResizeVolume sets the size; what was truncated is stale where it is mapped.
func (c *comparison) ResizeVolume(r *record.ResizeVolume) error {
	v, err := c.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	if err := v.checkNewSize(r.Size); err != nil {
		return err
	}
	blocks := uint64((r.Size + BlockLength - 1) / BlockLength)
	has := v.size == r.Size
	if blocks < v.root.Blocks() {
		has = c.holes(v, blocks, v.root.Blocks()-blocks) && has
	}
	c.s.parts.forest.Grow(&v.root, blocks)
	v.size = r.Size
	return inRows(has)
}
