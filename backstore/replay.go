package backstore

import (
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/journal"
)

// redo does the operation of one journal record again. It runs before anything
// else uses the store, so it takes no locks.
func (s *Store) redo(lsn journal.LSN, payload []byte) error {
	d := &dec{b: payload}
	var err error
	kind := d.byte()
	switch kind {
	case recWrite:
		err = s.redoWrite(d)
	case recClear:
		err = s.redoClear(d)
	case recMap:
		err = s.redoMap(d)
	case recSnapshot:
		err = s.redoSnapshot(d)
	case recDeleteSnapshot:
		err = s.redoDeleteSnapshot(d)
	case recCreateVolume:
		v := d.volume(s)
		s.volumes[v.number], s.byName[v.key()] = v, v
		s.lastVolume = max(s.lastVolume, v.number)
	case recDeleteVolume:
		var v *Volume
		if v, err = s.volumeNumber(d.uint()); err == nil {
			err = s.removeVolume(v)
		}
	case recResizeVolume:
		var v *Volume
		if v, err = s.volumeNumber(d.uint()); err == nil {
			err = s.redoResize(v, d.int63())
		}
	case recCloneVolume:
		err = s.redoClone(d)
	case recRenameFile:
		err = s.redoRename(d)
	case recReplaceFiles:
		err = s.redoReplace(d)
	case recRecords:
		s.putRecords(d.records())
	default:
		err = fmt.Errorf("%w: unknown kind %d", ErrCorrupt, kind)
	}
	if d.err != nil {
		err = d.err
	}
	if err != nil {
		return fmt.Errorf("journal record %d: %w", lsn, err)
	}
	return nil
}

func (s *Store) volumeNumber(number uint64) (*Volume, error) {
	v := s.volumes[number]
	if v == nil {
		return nil, fmt.Errorf("%w: it names volume %d, which does not exist", ErrCorrupt, number)
	}
	return v, nil
}

func (s *Store) redoWrite(d *dec) error {
	v, err := s.volumeNumber(d.uint())
	if err != nil {
		return err
	}
	block, blocks := d.uint(), d.uint()
	inline := d.byte()&flagInline != 0
	p := &writePlan{}
	for uint64(p.blocks) < blocks && d.err == nil {
		if err := s.redoRun(d, p); err != nil {
			return err
		}
	}
	if d.err != nil {
		return d.err
	}
	if inline {
		if err := s.restoreInline(d, p); err != nil {
			return err
		}
	}
	if err := inTree(v.root, block, uint64(p.blocks)); err != nil {
		return err
	}
	return s.install(v, block, p.slots[:p.blocks], p.known[:p.blocks], p.first, p.fresh)
}

func (p *writePlan) freshBytes() int {
	n := 0
	for i := range p.fresh {
		n += int(p.fresh[i].Blocks) * BlockLength
	}
	return n
}

func (s *Store) redoRun(d *dec, p *writePlan) error {
	room := planBlocks - p.blocks
	switch tag := d.byte(); tag {
	case runHole:
		n := d.uint()
		if n > uint64(room) {
			d.fail()
			return nil
		}
		p.blocks += int(n)
	case runKnown:
		first, n := extent.Slot(d.uint()), d.uint()
		if n > uint64(room) {
			d.fail()
			return nil
		}
		known := p.known[p.blocks : p.blocks+int(n)]
		for i := range known {
			p.slots[p.blocks], known[i] = first, first
			first++
			p.blocks++
		}
		// The writer had a pin that kept them; here only the record says that they exist.
		return s.extents.Resolve(known, make([]extent.Location, n))
	case runFresh:
		first, extents := d.freshExtents(s.sb.unit)
		if len(p.fresh) == 0 {
			p.first = first
		}
		for i := range extents {
			x := extents[i]
			if int(x.Blocks) > planBlocks-p.blocks {
				d.fail()
				return nil
			}
			x.at = p.blocks
			for k := range int(x.Blocks) {
				p.slots[p.blocks] = s.extents.Slot(first+extent.ID(i), k)
				p.blocks++
			}
			p.fresh = append(p.fresh, x)
		}
	default:
		return fmt.Errorf("%w: run of unknown kind %d", ErrCorrupt, tag)
	}
	return nil
}

// restoreInline puts the data that the record carries where it was.
func (s *Store) restoreInline(d *dec, p *writePlan) error {
	data := d.take(uint64(p.freshBytes()))
	if d.err != nil || len(p.fresh) == 0 {
		return d.err
	}
	return s.segments.WriteAt(p.fresh[0].Addr, data)
}

func (s *Store) redoClear(d *dec) error {
	v, err := s.volumeNumber(d.uint())
	if err != nil {
		return err
	}
	first, count := d.uint(), d.uint()
	if err := inTree(v.root, first, count); err != nil {
		return err
	}
	return s.forest.Clear(&v.root, first, count)
}

// inTree reports whether blocks that a record names are within a tree.
func inTree(r blockmap.Root, first, count uint64) error {
	if first > r.Blocks() || count > r.Blocks()-first {
		return fmt.Errorf("%w: %d blocks at block %d are beyond the tree", ErrCorrupt, count, first)
	}
	return nil
}

func (s *Store) redoResize(v *Volume, size int64) error {
	if err := v.checkNewSize(size); err != nil {
		return err
	}
	return v.resize(size)
}

func (s *Store) redoMap(d *dec) error {
	v, err := s.volumeNumber(d.uint())
	if err != nil {
		return err
	}
	to, id, from, n := d.uint(), d.uint(), d.uint(), d.uint()
	st := s.snapshots[id]
	if d.err != nil || st == nil {
		return fmt.Errorf("%w: it names snapshot %d, which does not exist", ErrCorrupt, id)
	}
	if err := inTree(v.root, to, n); err != nil {
		return err
	}
	if err := inTree(st.root, from, n); err != nil {
		return err
	}
	for n > 0 {
		done, err := s.forest.Copy(&v.root, to, st.root, from, n, mapStep)
		if err != nil {
			return err
		}
		to, from, n = to+done, from+done, n-done
	}
	return nil
}

func (s *Store) redoSnapshot(d *dec) error {
	v, err := s.volumeNumber(d.uint())
	if err != nil {
		return err
	}
	st := &snapshotState{id: d.uint(), ranges: d.ranges()}
	records := d.records()
	if d.err != nil {
		return d.err
	}
	return s.takeSnapshot(v, st, records, func() {})
}

// redoDeleteSnapshot keeps the tree until the replay ends: a later record can
// copy from it, where a handle had kept it alive.
func (s *Store) redoDeleteSnapshot(d *dec) error {
	st := s.snapshots[d.uint()]
	if st == nil {
		return fmt.Errorf("%w: it names a snapshot that does not exist", ErrCorrupt)
	}
	st.deleted = true
	s.changedSnaps[st.id] = true
	s.putRecords(d.records())
	return nil
}
