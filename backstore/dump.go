package backstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/record"
	"odx/backstore/rows"
)

// DumpParts are what Dump knows, in its order.
var DumpParts = []string{"superblock", "checkpoint", "volumes", "snapshots", "records", "nodes", "extents", "counts", "usage", "known", "aliases", "journal"}

// DumpItem is a piece of a store, as text.
type DumpItem struct {
	Part string
	// Key is a file, the number of a row, a key, or an LSN.
	Key   string
	Value any
	// Error says why it cannot be read.
	Error string
}

// Dump shows what is in the files of a store that no process has open: those of
// parts, all of DumpParts for none. It continues after what is damaged. The journal is
// shown as it is, and is in none of the rows.
func Dump(ctx context.Context, o Options, parts []string, emit func(DumpItem) error) (err error) {
	for _, part := range parts {
		if !slices.Contains(DumpParts, part) {
			return fmt.Errorf("%w: there is no part %q of a store; there are %v", ErrInvalid, part, DumpParts)
		}
	}
	o.ReadOnly = true
	if err := errors.Join(o.refuseOwner(), o.setDefaults()); err != nil {
		return err
	}
	d := dumper{s: newStore(o), emit: func(item DumpItem) error {
		if len(parts) > 0 && !slices.Contains(parts, item.Part) {
			return ctx.Err()
		}
		return errors.Join(emit(item), ctx.Err())
	}}
	if err := d.s.own(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.s.closeFiles()) }()
	if err := d.superblocks(); err != nil {
		return err
	}
	if err := d.openRows(ctx); err != nil {
		return err
	}
	first, err := d.rows()
	if err != nil {
		return err
	}
	return d.journal(ctx, first)
}

type dumper struct {
	s     *Store
	names record.Names
	emit  func(DumpItem) error
}

// superblocks shows both copies of the superblock.
func (d *dumper) superblocks() error {
	for _, in := range layout.Superblocks(d.s.opts.Dir) {
		name := filepath.Join(in, layout.SuperblockName)
		sb, err := layout.ReadSuperblock(d.s.opts.FS, name)
		item := DumpItem{Part: "superblock", Key: name}
		var other *layout.FormatError
		if err != nil && !errors.As(err, &other) {
			item.Error = err.Error()
		} else {
			item.Value = sb.Describe(other)
		}
		if err := d.emit(item); err != nil {
			return err
		}
	}
	return nil
}

// openRows opens the metadata, of an earlier format, too.
func (d *dumper) openRows(ctx context.Context) error {
	s := d.s
	sb, _, found, err := s.opts.dir().FindSuperblock()
	if lost, ok := errors.AsType[*layout.LostError](err); ok {
		sb, err = s.rebuildSuperblock(lost)
		found = true
	}
	s.parts.sb = sb
	if old := (*layout.FormatError)(nil); errors.As(err, &old) && old.Version == 2 {
		_, err = s.convertRows(ctx)
	} else if err == nil && !found {
		err = fmt.Errorf("%w: there is no store in %s", ErrNotFound, s.opts.Dir)
	} else if err == nil {
		s.parts.kv, err = s.openRows(s.laterUnneeded(ctx))
	}
	if err == nil && s.parts.sb.Unit == 0 {
		s.parts.sb.Unit, err = s.recovery.findUnit(ctx)
	}
	return err
}

// rows shows the rows, and returns the first record that the journal has to have.
func (d *dumper) rows() (first journal.LSN, err error) {
	kv := d.s.parts.kv
	if why := kv.Unneeded(); why != nil {
		if err := d.emit(DumpItem{Part: "checkpoint", Error: fmt.Sprintf("not needed, since the journal has every change: %v", why)}); err != nil {
			return 0, err
		}
	}
	first = 1
	err = kv.Scan(nil, func(key, value []byte) error {
		if string(key) == rows.CheckpointKey {
			if st, err := rows.DecodeCheckpoint(value); err == nil {
				first = st.FirstLSN
			}
		}
		if key[0] == rows.VolumePrefix {
			if row, err := rows.DecodeVolume(value); err == nil {
				d.names.Rename(row.Number, row.Key())
			}
		}
		return d.emit(rowItem(key, value, d.s.parts.sb.Unit))
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
		r, err := record.Decode(rec.Payload, d.s.parts.sb.Unit)
		if err != nil {
			item.Error = err.Error()
		} else {
			value := r.Describe()
			value["durable"] = rec.Durable
			value["changes"] = r.Changes(&d.names)
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
