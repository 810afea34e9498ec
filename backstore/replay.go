package backstore

import (
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/record"
	"odx/backstore/rows"
)

// replay applies records of the journal to the store. It runs before anything else
// uses the store, so it takes no locks.
type replay struct{ s *Store }

// redo does the operation of one journal record again.
func (p replay) redo(rec journal.Record) error {
	r, err := p.s.recovery.readRecord(rec)
	if err == nil {
		err = r.Apply(p)
	}
	if err != nil {
		return fmt.Errorf("journal record %d: %w", rec.LSN, err)
	}
	p.s.recovery.redone = rec.LSN
	return nil
}

// readRecord decodes a record of the journal and proves, where it may be what a power
// cut left, that its data is there: journal.ErrCut.
func (rc *recovery) readRecord(rec journal.Record) (record.Record, error) {
	r, err := record.Decode(rec.Payload, rc.parts.sb.Unit)
	if w, ok := r.(*record.Write); ok && !rec.Durable && err == nil {
		err = rc.verifyWrite(w)
	}
	return r, err
}

func (p replay) Write(r *record.Write) error {
	s := p.s
	v, err := s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	// The writer had pins that kept known extents; here only the record says that
	// they exist.
	for i := 0; i < r.Blocks; i++ {
		n := 0
		for i+n < r.Blocks && r.Known[i+n] != 0 {
			n++
		}
		if n == 0 {
			continue
		}
		if err := s.parts.extents.Resolve(r.Known[i:i+n], make([]extent.Location, n)); err != nil {
			return err
		}
		i += n
	}
	if r.Inline != nil && len(r.Fresh) > 0 {
		if err := s.recovery.restoreInline(r); err != nil {
			return err
		}
	}
	if err := inTree(v.root, r.Block, uint64(r.Blocks)); err != nil {
		return err
	}
	return s.writer.install(&v.root, r)
}

func (p replay) Clear(r *record.Clear) error {
	v, err := p.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	if err := inTree(v.root, r.First, r.Count); err != nil {
		return err
	}
	return p.s.parts.forest.Clear(&v.root, r.First, r.Count)
}

func (p replay) Map(r *record.Map) error {
	s := p.s
	v, err := s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	st, err := s.catalog.snapshot(r.Snapshot)
	if err != nil {
		return err
	}
	if err := inTree(v.root, r.To, r.Count); err != nil {
		return err
	}
	if err := inTree(st.root, r.From, r.Count); err != nil {
		return err
	}
	to, from, n := r.To, r.From, r.Count
	for n > 0 {
		done, err := s.parts.forest.Copy(&v.root, to, st.root, from, n, mapStep)
		if err != nil {
			return err
		}
		to, from, n = to+done, from+done, n-done
	}
	return nil
}

func (p replay) Snapshot(r *record.Snapshot) error {
	v, err := p.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	return p.s.takeSnapshot(v, &snapshotState{id: r.ID, ranges: r.Ranges}, r.Records, func() {})
}

// DeleteSnapshot keeps the tree until the replay ends: a later record can copy from it,
// where a handle had kept it alive.
func (p replay) DeleteSnapshot(r *record.DeleteSnapshot) error {
	st, err := p.s.catalog.snapshot(r.ID)
	if err != nil {
		return err
	}
	st.deleted = true
	p.s.catalog.changedSnaps[st.id] = true
	p.s.records.put(r.Records)
	return nil
}

func (p replay) PutRecords(r *record.PutClients) error {
	p.s.records.put(r.Records)
	return nil
}

func (p replay) CreateVolume(r *record.CreateVolume) error {
	p.s.catalog.enter(p.s.volumeOf(&r.Row))
	return nil
}

func (p replay) DeleteVolume(r *record.DeleteVolume) error {
	v, err := p.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	return p.s.removeVolume(v)
}

func (p replay) ResizeVolume(r *record.ResizeVolume) error {
	v, err := p.s.catalog.volume(r.Volume)
	if err != nil {
		return err
	}
	if err := v.checkNewSize(r.Size); err != nil {
		return err
	}
	return v.resize(r.Size)
}

func (p replay) CloneVolume(r *record.CloneVolume) error {
	from, err := p.s.catalog.volume(r.From)
	if err != nil {
		return err
	}
	v := p.s.newVolume(r.Name)
	v.number, v.id, v.created = r.Number, r.ID, r.Created
	v.setFlags(r.Flags)
	if err := p.s.shareTree(from, v); err != nil {
		return err
	}
	p.s.catalog.enter(v)
	return nil
}

// RenameFile deletes the file that has the name.
func (p replay) RenameFile(r *record.RenameFile) error {
	again := record.ReplaceFiles{File: r.File, To: r.To}
	if old := p.s.catalog.byName[rows.Name{Name: r.To, File: true}]; old != nil && old.number != r.File {
		again.Gone = []uint64{old.number}
	}
	return p.ReplaceFiles(&again)
}

func (p replay) ReplaceFiles(r *record.ReplaceFiles) error {
	v, err := p.s.catalog.volume(r.File)
	if err != nil {
		return err
	}
	again := replacement{file: v, to: r.To}
	for _, number := range r.Gone {
		old, err := p.s.catalog.volume(number)
		if err != nil {
			return err
		}
		again.deleted = append(again.deleted, old)
	}
	p.s.catalog.rename(&again)
	return p.s.dropAll(again.deleted)
}

// inTree reports whether blocks that a record names are within a tree.
func inTree(r blockmap.Root, first, count uint64) error {
	if first > r.Blocks() || count > r.Blocks()-first {
		return fmt.Errorf("%w: %d blocks at block %d are beyond the tree", ErrCorrupt, count, first)
	}
	return nil
}
