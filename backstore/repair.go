package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/record"
	"odx/backstore/rows"
	"odx/backstore/segment"
	"odx/backstore/vfs"
)

// A repair makes the metadata of a store again from what can be read of it: trees
// node by node, so that what they share stays shared, the extents that they
// refer to, at the places where they are, and every count from that. A block whose
// extent, or whose part of the map, is lost refers to an extent that fails its
// checksum: it stays a read error until it is written again.

// lostText is what is at the place of an extent that is lost.
const lostText = "lost by damage "

// RepairOptions say what Repair does.
type RepairOptions struct {
	Options
	// To is the directory, which must not exist or be empty, that gets the
	// repaired store, with a copy of its data; "": the store is repaired where it
	// is, and what was replaced is kept next to it.
	To string
	// SkipData leaves out reading the data: what is damaged in segments is found
	// when it is read.
	SkipData bool
	// Progress, if there is one, is called now and then with how many bytes of
	// segments were copied, and how many there are.
	Progress func(done, total int64)
}

// maxLost bounds Repaired.Lost.
const maxLost = 10000

// Repair rebuilds a store that no process has open from what can be proved right.
func Repair(ctx context.Context, o RepairOptions) (r Repaired, err error) {
	if err := errors.Join(o.refuseOwner(), o.setDefaults()); err != nil {
		return r, err
	}
	r.Lost, r.Unused, r.DataRead = []Lost{}, []UnusedChange{}, !o.SkipData
	m := repair{o: o, fsys: o.FS, result: &r}
	if o.To == "" {
		if done, err := m.resume(); done || err != nil {
			return r, err
		}
	}
	if err = m.open(ctx); err == nil {
		err = m.run(ctx)
	}
	if err = m.close(err); err == nil && o.To == "" {
		err = m.swap()
	}
	return r, err
}

// close closes both stores, and undoes what an error of the repair has left while the
// store is still owned. It returns the error with what remains.
func (m *repair) close(err error) error {
	if m.to != nil {
		err = errors.Join(err, m.to.closeFiles())
	}
	if m.from != nil {
		err = errors.Join(err, m.from.parts.close())
	}
	if err != nil {
		err = fmt.Errorf("repair of store %s: %w%s", m.o.Dir, spaceError(err), m.undo())
	}
	if m.from != nil {
		err = errors.Join(err, m.from.life.owner.Release())
	}
	return err
}

// undo removes what a repair in place has made that did not end, and says what
// remains of it.
func (m *repair) undo() string {
	if m.o.To != "" {
		if m.to == nil {
			return ""
		}
		return fmt.Sprintf("; the store has not changed, and what was made so far is in %s, which is no store", m.o.To)
	}
	if m.from == nil {
		return "" // nothing was made
	}
	if err := m.removeProbes(); err != nil {
		m.o.Log.WithError(err).Warn("what tested whether the store can be repaired in place is not needed, and cannot be removed")
	}
	if m.to == nil {
		return ""
	}
	if err := errors.Join(m.removeMade(), m.removeSegments()); err != nil {
		return fmt.Sprintf("; the store has not changed but for %s, which is not needed and cannot be removed: %v", filepath.Join(m.o.Dir, layout.RepairDir), err)
	}
	return "; the store has not changed"
}

// repair is a Repair at work.
type repair struct {
	o      RepairOptions
	fsys   vfs.FS // for as long as the damaged store is owned
	from   *Store // open for reading alone
	to     *Store
	result *Repaired

	trees   blockmap.Import
	made    []uint64 // a bit for each extent that was made
	bad     map[extent.ID]badExtent
	data    []byte // of one extent
	lost    extent.Slot
	current tree // whose blocks are being made
	whole   map[segment.ID]int64
}

// open opens the damaged store, and makes an empty one.
func (m *repair) open(ctx context.Context) (err error) {
	o := m.o.Options
	o.ReadOnly = true
	if m.from, err = Open(ctx, o); err != nil {
		return err
	}
	m.fsys = vfs.Fenced(m.fsys, m.from.Owned)
	if err := errors.Join(m.mayRead(), m.refuseAdopted()); err != nil {
		return err
	}
	if m.o.To != "" {
		return m.openMade(ctx, m.o.To, m.o.To)
	}
	if err := m.refuseInPlace(); err != nil {
		return err
	}
	if err := m.prepareSwap(); err != nil {
		return err
	}
	return m.openMade(ctx, filepath.Join(m.o.Dir, layout.RepairDir), m.o.Dir)
}

// refuseInPlace refuses to replace a store of which too little is left: what a repair does
// not find is removed.
func (m *repair) refuseInPlace() error {
	rows := filepath.Join(m.o.Dir, layout.CheckpointDir)
	if m.from.recovery.stateless && len(m.from.catalog.volumes) == 0 && len(m.from.catalog.snapshots) == 0 {
		// An empty store would be made, and all segments removed from it.
		return fmt.Errorf("%w: no volume, file or snapshot can be read from %s, so a repair in place would give up all data: restore that directory from a copy", ErrCorrupt, rows)
	}
	if m.from.recovery.guessed {
		return fmt.Errorf("%w: the rows of volumes are lost, so a repair in place would give up their data, which may still be restored: restore %s from a copy, or repair with --to", ErrCorrupt, rows)
	}
	return nil
}

// openMade makes an empty store in dir, whose segments are those below data, and opens it.
func (m *repair) openMade(ctx context.Context, dir, data string) error {
	o := m.o.Options
	o.FS, o.Dir, o.rebuilding = m.fsys, dir, filepath.Join(data, layout.SegmentDir)
	if err := m.emptyTarget(dir); err != nil {
		return err
	}
	m.to = newStore(o)
	if err := m.to.own(ctx); err != nil {
		return err
	}
	if m.o.To != "" {
		if err := m.to.opts.dir().Mark(layout.UnfinishedName); err != nil {
			return err
		}
		if err := m.copySegments(ctx); err != nil {
			return err
		}
	}
	m.to.parts.sb = m.from.parts.sb
	m.to.parts.sb.Generation, m.to.parts.sb.OldJournal = m.from.parts.sb.Generation+1, false
	first := rows.Checkpoint{
		FirstLSN: m.nextLSN(), NextNode: 1, NextExtent: m.from.parts.extents.Next(), NextSegment: m.from.parts.segments.NextID(),
		LastVolume: m.from.catalog.lastVolume, LastSnapshot: m.from.catalog.lastSnapshot,
	}
	if err := m.to.found(&first); err != nil {
		return err
	}
	return m.to.openParts(ctx)
}

// nextLSN returns the number of the first record that is not in the store as it
// was opened.
func (m *repair) nextLSN() journal.LSN {
	return max(journal.LSN(m.from.pace.firstLSN.Load()), m.from.recovery.redone+1)
}

// emptyTarget proves that there is nothing where the store is to be made, or, in
// place, removes what an interrupted repair has left.
func (m *repair) emptyTarget(dir string) error {
	names, err := m.fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.o.To != "" {
		if slices.Contains(names, layout.UnfinishedName) {
			return fmt.Errorf("%w: %s is what a repair that did not end has made: remove it, and repair once more", ErrExists, dir)
		}
		if len(names) > 0 {
			return fmt.Errorf("%w: %s is not empty", ErrExists, dir)
		}
		return nil
	}
	return m.removeMade()
}

func (m *repair) run(ctx context.Context) error {
	m.whole, m.data = make(map[segment.ID]int64), make([]byte, m.from.parts.sb.Unit*BlockLength)
	m.trees = blockmap.Import{
		To: m.to.parts.forest, From: m.from.parts.forest, Leaf: m.leaf, Lost: m.lostSlot,
		Report: func(first, count uint64, err error) { m.lose(first, count, err.Error()) },
		Pause:  func() error { return m.pause(ctx) },
	}
	found, more := m.from.damage.All()
	for _, d := range found {
		m.note(Lost{What: d.What, Reason: d.Error})
	}
	m.result.More += more
	if unused, more := m.from.Unused(); len(unused) > 0 {
		m.result.Unused, m.result.MoreUnused = unused, more
	}
	m.to.opMu.RLock()
	err := m.makeAll()
	if err == nil {
		err = m.dropMade()
	}
	m.to.opMu.RUnlock()
	if err != nil {
		return err
	}
	if err := m.restoreInline(ctx); err != nil {
		return err
	}
	if err := m.to.Checkpoint(ctx); err != nil {
		return err
	}
	findings, err := m.to.Check(ctx)
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		return fmt.Errorf("%w: what was made contradicts itself, which is an error of odx: %s", ErrCorrupt, findings[0])
	}
	dir := m.to.opts.Dir
	if m.o.To != "" {
		if err := m.to.parts.sb.WriteBoth(m.to.opts.FS, dir); err != nil {
			return err
		}
		return m.to.opts.dir().Unmark(layout.UnfinishedName)
	}
	if m.to.parts.sb.Place, err = m.fsys.Place(m.o.Dir); err != nil {
		return err
	}
	if err := m.to.parts.sb.Write(m.to.opts.FS, filepath.Join(dir, layout.CheckpointDir)); err != nil {
		return err
	}
	return m.noteRepaired()
}

// pause stores what was made, when it takes up much of the cache. opMu is shared.
func (m *repair) pause(ctx context.Context) error {
	if err := ctx.Err(); err != nil || !m.to.pace.tooDirty() {
		return err
	}
	m.to.opMu.RUnlock()
	defer m.to.opMu.RLock()
	return m.to.Checkpoint(ctx)
}

// makeAll makes volumes, files, snapshots and records. All trees are made before one of
// them is changed: what they share is shared then, and is not changed with it.
func (m *repair) makeAll() error {
	spaces := m.from.catalog.all()
	for _, v := range spaces {
		m.current = tree{volume: v}
		made := m.to.volumeOf(v.row())
		var err error
		if made.root, err = m.trees.Tree(v.root); err != nil {
			return err
		}
		m.to.catalog.enter(made)
		m.result.Volumes++
	}
	for _, st := range m.from.catalog.snapshots {
		if st.deleted {
			continue
		}
		m.current = tree{snapshot: st}
		root, err := m.trees.Tree(st.root)
		if err != nil {
			return err
		}
		made := &snapshotState{id: st.id, root: root, ranges: st.ranges, length: st.length}
		m.to.catalog.snapshots[st.id], m.to.catalog.changedSnaps[st.id] = made, true
		m.result.Snapshots++
	}
	recs, _, err := m.from.records.collect(nil)
	if err != nil {
		m.note(Lost{What: "records", Reason: err.Error()})
	}
	m.to.records.put(recs)
	m.result.Records = len(recs)
	return m.cutTrees(spaces)
}

// cutTrees gives up what of the trees is not to be shown.
func (m *repair) cutTrees(spaces []*Volume) error {
	for _, v := range spaces {
		m.current = tree{volume: v}
		root := &m.to.catalog.volumes[v.number].root
		if err := m.makeStale(root, &v.stale); err != nil {
			return err
		}
		// A part of the map that is lost can reach beyond the end.
		if end := uint64(v.size+BlockLength-1) / BlockLength; end < root.Blocks() {
			if err := m.to.parts.forest.Clear(root, end, root.Blocks()-end); err != nil {
				return err
			}
		}
	}
	for id, made := range m.to.catalog.snapshots {
		m.current = tree{snapshot: m.from.catalog.snapshots[id]}
		if err := m.makeStale(&made.root, &m.current.snapshot.stale); err != nil {
			return err
		}
	}
	return m.trees.End()
}

// restoreInline writes the data that only the journal had to where it belongs.
func (m *repair) restoreInline(ctx context.Context) error {
	end := m.nextLSN()
	_, err := journal.Read(ctx, m.from.journalOptions(journal.LSN(m.from.pace.firstLSN.Load())), func(rec journal.Record) error {
		if rec.LSN >= end {
			return nil
		}
		r, err := record.Decode(rec.Payload, m.from.parts.sb.Unit)
		w, ok := r.(*record.Write)
		if err != nil || !ok || w.Inline == nil {
			return nil // what cannot be read was reported
		}
		data := w.Inline
		for i := range w.Fresh {
			x := &w.Fresh[i]
			n := int(x.Blocks) * BlockLength
			if err := m.restoreExtent(w.First+extent.ID(i), x.Addr, data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
		return nil
	})
	return err
}

// restoreExtent writes the data of an extent to where it belongs, or to another
// place where it had to get one.
func (m *repair) restoreExtent(id extent.ID, addr segment.Addr, data []byte) error {
	now, ok, err := m.to.parts.extents.Entry(id)
	if err != nil || !ok || !m.isMade(id) {
		return nil
	}
	if m.from.recovery.isDisplaced(id) {
		to, err := m.to.parts.segments.Append(data)
		if err != nil {
			return err
		}
		m.to.opMu.RLock()
		defer m.to.opMu.RUnlock()
		_, err = m.to.parts.extents.Move(id, now.Addr, to)
		return err
	}
	if now.Addr != addr {
		return nil
	}
	return m.to.parts.segments.WriteAt(addr, data)
}

// lose notes blocks of the current tree that are lost.
func (m *repair) lose(first, count uint64, reason string) {
	var size int64
	if v := m.current.volume; v != nil {
		size = v.size
		m.loseRange(int64(first)*BlockLength, min(int64(count)*BlockLength, size-int64(first)*BlockLength), reason)
		return
	}
	// A tree of a snapshot can hold more than the snapshot shows.
	lo, hi := int64(first)*BlockLength, int64(first+count)*BlockLength
	for _, r := range m.current.snapshot.ranges {
		if from, to := max(lo, r.Offset), min(hi, r.Offset+r.Length); from < to {
			m.loseRange(from, to-from, reason)
		}
	}
}

func (m *repair) loseRange(off, length int64, reason string) {
	if length <= 0 {
		return
	}
	m.result.LostBytes += length
	what := m.current.name()
	if n := len(m.result.Lost); n > 0 {
		if last := &m.result.Lost[n-1]; last.What == what && last.Reason == reason && last.Length > 0 && last.Offset+last.Length == off {
			last.Length += length
			return
		}
	}
	m.note(Lost{What: what, Offset: off, Length: length, Reason: reason})
}

func (m *repair) note(l Lost) {
	if len(m.result.Lost) == maxLost {
		m.result.More++
		return
	}
	m.result.Lost = append(m.result.Lost, l)
}
