package backstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/rows"
)

// DumpParts are what Dump knows, in its order.
var DumpParts = []string{"superblock", "checkpoint", "volumes", "snapshots", "records", "nodes", "extents", "counts", "usage", "journal"}

// DumpItem is a piece of a store, for people.
type DumpItem struct {
	Part string
	// Key is a file, the number of a row, a key, or an LSN.
	Key   string
	Value any
	// Error says why it cannot be read.
	Error string
}

// Dump shows what is in the files of a store that no process has open: those of
// parts, all of DumpParts for none. It goes on after what is damaged. The journal is
// shown as it is, and is in none of the rows.
func Dump(ctx context.Context, o Options, parts []string, emit func(DumpItem) error) (err error) {
	for _, part := range parts {
		if !slices.Contains(DumpParts, part) {
			return fmt.Errorf("%w: there is no part %q of a store; there are %v", ErrInvalid, part, DumpParts)
		}
	}
	o.ReadOnly = true
	if err := o.setDefaults(); err != nil {
		return err
	}
	d := dumper{s: newStore(o), names: names{later: make(map[uint64]rows.Name)}, emit: func(item DumpItem) error {
		if len(parts) > 0 && !slices.Contains(parts, item.Part) {
			return ctx.Err()
		}
		return errors.Join(emit(item), ctx.Err())
	}}
	if err := d.s.lock(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.s.closeFiles()) }()
	first, err := d.rows(ctx)
	if err != nil {
		return err
	}
	return d.journal(ctx, first)
}

type dumper struct {
	s     *Store
	names names
	emit  func(DumpItem) error
}

// rows shows superblocks and rows, and returns the first record that the journal
// has to have.
func (d *dumper) rows(ctx context.Context) (first journal.LSN, err error) {
	s := d.s
	for _, in := range layout.Superblocks(s.opts.Dir) {
		name := filepath.Join(in, layout.SuperblockName)
		sb, err := layout.ReadSuperblock(s.opts.FS, name)
		item := DumpItem{Part: "superblock", Key: name}
		var other *layout.FormatError
		if err != nil && !errors.As(err, &other) {
			item.Error = err.Error()
		} else {
			item.Value = sb.Describe(other)
		}
		if err := d.emit(item); err != nil {
			return 0, err
		}
	}
	sb, _, found, err := s.opts.dir().FindSuperblock()
	if lost, ok := errors.AsType[*layout.LostError](err); ok {
		sb, err = s.rebuildSuperblock(lost)
		found = true
	}
	s.sb = sb
	if old := (*layout.FormatError)(nil); errors.As(err, &old) && old.Version == 2 {
		_, err = s.convertRows(ctx)
	} else if err == nil && !found {
		err = fmt.Errorf("%w: there is no store in %s", ErrNotFound, s.opts.Dir)
	} else if err == nil {
		s.kv, err = s.openRows()
	}
	if err == nil && s.sb.Unit == 0 {
		s.sb.Unit, err = s.findUnit()
	}
	if err != nil {
		return 0, err
	}
	first = 1
	err = s.kv.Scan(nil, func(key, value []byte) error {
		if string(key) == rows.CheckpointKey {
			if st, err := rows.DecodeCheckpoint(value); err == nil {
				first = st.FirstLSN
			}
		}
		if key[0] == rows.VolumePrefix {
			if row, err := rows.DecodeVolume(value); err == nil {
				d.names.rename(row.Number, row.Key())
			}
		}
		return d.emit(rowItem(key, value, s.sb.Unit))
	})
	if metadataDamage(err) {
		err = d.emit(DumpItem{Part: "checkpoint", Error: err.Error()})
	}
	return first, err
}

// rowItem shows a row.
func rowItem(key, value []byte, unit int) DumpItem {
	item := DumpItem{Part: rows.Part(key[0]), Key: rows.KeyText(key)}
	var err error
	if item.Value, err = rows.Describe(key, value, unit); err != nil {
		item.Value, item.Error = nil, err.Error()
	}
	return item
}

// journal shows the records of the journal, and what is damaged of it.
func (d *dumper) journal(ctx context.Context, first journal.LSN) error {
	next := first // until records are missing
	found, err := journal.Read(ctx, d.s.journalOptions(first), func(rec journal.Record) error {
		item := DumpItem{Part: "journal", Key: fmt.Sprint(rec.LSN)}
		r, err := decodeRecord(rec.Payload, d.s.sb.Unit)
		if err != nil {
			item.Error = err.Error()
		} else {
			value := describeRecord(r, rec.Durable)
			value["changes"] = r.changes(&d.names)
			if rec.LSN != next {
				value["behind_damage"] = true
			}
			item.Value = value
		}
		if rec.LSN == next {
			next++
		}
		return d.emit(item)
	})
	for _, damage := range found.Damages {
		if err := d.emit(DumpItem{Part: "journal", Key: damage.File, Error: damage.String()}); err != nil {
			return err
		}
	}
	if errors.Is(err, journal.ErrCorrupt) {
		return d.emit(DumpItem{Part: "journal", Error: err.Error()})
	}
	return err
}

// describeRecord shows a record of the journal.
func describeRecord(r record, durable bool) map[string]any {
	v := map[string]any{"durable": durable}
	set := func(kind string, values map[string]any) map[string]any {
		v["kind"] = kind
		for k, value := range values {
			v[k] = value
		}
		return v
	}
	switch r := r.(type) {
	case *writeRecord:
		fresh := []any{}
		for i := range r.fresh {
			x := &r.fresh[i]
			fresh = append(fresh, map[string]any{"extent": r.first + extent.ID(i), "at": x.at, "segment": fmt.Sprintf("%08x", uint32(x.Addr.Segment)), "block": x.Addr.Block, "blocks": x.Blocks})
		}
		return set("write", map[string]any{"volume": r.volume, "block": r.block, "blocks": r.blocks, "slots": r.slots[:r.blocks], "new": fresh, "carries_data": r.inline != nil})
	case *clearRecord:
		return set("unmap", map[string]any{"volume": r.volume, "block": r.first, "blocks": r.count})
	case *mapRecord:
		return set("map", map[string]any{"volume": r.volume, "block": r.to, "snapshot": r.snapshot, "from": r.from, "blocks": r.count})
	case *snapshotRecord:
		return set("snapshot", map[string]any{"volume": r.volume, "id": r.id, "ranges": r.ranges, "records": describeRecords(r.records)})
	case *deleteSnapshotRecord:
		return set("delete snapshot", map[string]any{"id": r.id, "records": describeRecords(r.records)})
	case *createVolumeRecord:
		return set("create volume", r.row.Describe())
	case *deleteVolumeRecord:
		return set("delete volume", map[string]any{"volume": r.volume})
	case *recordsRecord:
		return set("records", map[string]any{"records": describeRecords(r.records)})
	case *resizeVolumeRecord:
		return set("resize volume", map[string]any{"volume": r.volume, "size": r.size})
	case *cloneVolumeRecord:
		return set("clone volume", map[string]any{"volume": r.from, "number": r.number, "id": fmt.Sprintf("%x", r.id), "name": r.name, "created": r.created})
	case *renameFileRecord:
		return set("rename file", map[string]any{"file": r.file, "to": r.to})
	case *replaceFilesRecord:
		return set("replace files", map[string]any{"file": r.file, "to": r.to, "deleted": r.gone})
	}
	return v
}

func describeRecords(recs []Record) []any {
	all := []any{}
	for _, r := range recs {
		one := map[string]any{"key": fmt.Sprintf("%q", r.Key), "deleted": r.Value == nil}
		if r.Value != nil {
			one["value"] = fmt.Sprintf("%q", r.Value)
		}
		all = append(all, one)
	}
	return all
}
