package backstore

import (
	"errors"
	"fmt"

	"odx/backstore/journal"
	"odx/backstore/record"
)

// A salvage replays a journal on rows of which some are lost. A record that can be
// applied is: what it leaves is right whatever was there before. Blocks that a record
// changes which cannot be are stale, and so are copies of them, until a later record
// that can be applied sets them.
type salvage struct {
	replay
	ended bool
}

// redo applies a record. After one that cannot be decoded none is: what it changes is
// not known.
func (p *salvage) redo(rec journal.Record) error {
	if p.ended {
		p.s.recovery.noteUnused(rec)
		return nil
	}
	one, err := p.s.recovery.readRecord(rec)
	switch {
	case errors.Is(err, journal.ErrCut):
		return fmt.Errorf("journal record %d: %w", rec.LSN, err)
	case err != nil:
		p.ended = true
		p.s.damage.Note(fmt.Sprintf("journal from record %d on", rec.LSN), err)
	default:
		err = one.Apply(p)
	}
	if err != nil {
		p.s.recovery.noteUnused(rec)
	}
	if err != nil && !p.ended {
		p.s.damage.Note(fmt.Sprintf("journal record %d", rec.LSN), err)
	}
	if !p.ended {
		p.s.recovery.redone = rec.LSN
	}
	return nil
}

// blocks applies a record that sets blocks of a volume. touch reads what it
// needs first.
func (p *salvage) blocks(r record.Record, number, first, count uint64, touch func(v *Volume) error) error {
	v, err := p.s.catalog.volume(number)
	if err != nil {
		return err
	}
	if err = inTree(v.root, first, count); err == nil {
		err = touch(v)
	}
	if err == nil {
		err = r.Apply(p.replay)
	}
	if err != nil {
		v.stale.Add(first, first+count)
		return err
	}
	v.stale.Remove(first, first+count)
	return nil
}

func (p *salvage) Write(r *record.Write) error {
	return p.blocks(r, r.Volume, r.Block, uint64(r.Blocks), func(v *Volume) error { return p.s.writer.touchWrite(v.root, r) })
}

func (p *salvage) Clear(r *record.Clear) error {
	return p.blocks(r, r.Volume, r.First, r.Count, func(v *Volume) error {
		return p.s.parts.forest.TouchClear(v.root, r.First, r.Count)
	})
}

// Map has blocks that are stale in the snapshot be stale in the volume. Each step
// of a copy reads what it needs first.
func (p *salvage) Map(r *record.Map) error {
	err := p.blocks(r, r.Volume, r.To, r.Count, func(*Volume) error { return nil })
	if err == nil {
		p.s.catalog.volumes[r.Volume].stale.CopyFrom(&p.s.catalog.snapshots[r.Snapshot].stale, r.To, r.From, r.Count)
	}
	return err
}

func (p *salvage) Snapshot(r *record.Snapshot) error {
	v, err := p.s.catalog.volume(r.Volume)
	if err == nil {
		err = p.s.parts.forest.TouchShare(v.root, blockRanges(r.Ranges))
	}
	if err == nil {
		err = p.replay.Snapshot(r)
	}
	if err == nil {
		p.s.catalog.snapshots[r.ID].stale = v.stale.Clone()
	}
	return err
}

// DeleteSnapshot puts the records also where the snapshot is lost: it is no more either
// way.
func (p *salvage) DeleteSnapshot(r *record.DeleteSnapshot) error {
	if p.s.catalog.snapshots[r.ID] == nil {
		p.s.catalog.changedSnaps[r.ID] = true
		p.s.records.put(r.Records)
		return nil
	}
	return p.replay.DeleteSnapshot(r)
}

// DeleteVolume deletes also a volume whose row is lost.
func (p *salvage) DeleteVolume(r *record.DeleteVolume) error {
	if p.s.catalog.volumes[r.Volume] == nil {
		p.s.catalog.deletedVols[r.Volume] = true
		return nil
	}
	return p.replay.DeleteVolume(r)
}

// ResizeVolume sets the size also where the map of what is truncated cannot be read: that
// is stale, should the file grow again.
func (p *salvage) ResizeVolume(r *record.ResizeVolume) error {
	v, err := p.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	if err := v.checkNewSize(r.Size); err != nil {
		return err
	}
	shrinks, blocks := r.Size < v.size, uint64((r.Size+BlockLength-1)/BlockLength)
	if err = v.resize(r.Size); err != nil {
		v.stale.Add(blocks, maxBlocks)
		p.s.parts.forest.Grow(&v.root, blocks)
		v.size = r.Size
	} else if shrinks {
		v.stale.Remove(blocks, maxBlocks)
	}
	return err
}

func (p *salvage) CloneVolume(r *record.CloneVolume) error {
	from, err := p.s.catalog.volume(r.From)
	if err == nil {
		err = p.s.parts.forest.TouchDrop(from.root)
	}
	if err == nil {
		err = p.replay.CloneVolume(r)
	}
	if err == nil {
		p.s.catalog.volumes[r.Number].stale = from.stale.Clone()
	}
	return err
}

func (p *salvage) RenameFile(r *record.RenameFile) error {
	if _, err := p.s.catalog.volume(r.File); err != nil {
		return err
	}
	return p.replay.RenameFile(r)
}

// ReplaceFiles deletes what the record deletes, also where the row of that, or of the
// file that gets the name, is lost.
func (p *salvage) ReplaceFiles(r *record.ReplaceFiles) error {
	var there []uint64
	for _, number := range r.Gone {
		if p.s.catalog.volumes[number] == nil {
			p.s.catalog.deletedVols[number] = true
			continue
		}
		there = append(there, number)
	}
	if _, err := p.s.catalog.volume(r.File); err != nil {
		for _, number := range there {
			if derr := p.s.removeVolume(p.s.catalog.volumes[number]); derr != nil {
				return derr
			}
		}
		return err
	}
	left := record.ReplaceFiles{File: r.File, To: r.To, Gone: there}
	return p.replay.ReplaceFiles(&left)
}
