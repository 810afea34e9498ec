package backstore

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/record"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// laterUnneeded returns the function that decides about files with the names of
// checkpoints after the newest one that can be read. They may be the newest metadata,
// damaged, or no metadata at all. Nothing of them is needed if the journal has every
// change since the checkpoint that can be read, as after a crash before they were stored.
//
// A later checkpoint may also have moved extents, which no record says, and removed
// segments. So a store that is opened for writing needs the segments of the checkpoint and
// of the records, too. One that is only read shows what lies there as lost.
func (s *Store) laterUnneeded(ctx context.Context) func(meta.Reader) (bool, error) {
	return func(kv meta.Reader) (bool, error) {
		unneeded, err := s.journalReaches(ctx, kv)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, journal.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) || metadataDamage(err) {
			return false, nil
		}
		return unneeded, err
	}
}

// journalReaches reports whether the journal has every change since the checkpoint in kv,
// and the segments that these refer to are there.
func (s *Store) journalReaches(ctx context.Context, kv meta.Reader) (bool, error) {
	st, err := readState(kv)
	if err != nil || s.parts.sb.OldJournal {
		return false, err
	}
	whole, refers := true, func(journal.Record) bool { return true }
	if !s.opts.ReadOnly {
		files, err := s.findSegments()
		if err != nil {
			return false, err
		}
		if whole, err = files.ofCheckpoint(kv); err != nil {
			return false, err
		}
		refers = files.ofRecord
	}
	next := st.FirstLSN
	found, err := journal.Read(ctx, journal.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.opts.Dir, layout.JournalDir), StoreID: s.parts.sb.ID, First: next,
	}, func(rec journal.Record) error {
		whole = whole && rec.LSN == next && refers(rec)
		next++
		return nil
	})
	return whole && len(found.Damages) == 0, err
}

// segmentNames knows which segments have a file.
type segmentNames struct {
	s     *Store
	names []string            // sorted
	lent  map[segment.ID]bool // aliases, whose files are those of other stores
}

func (s *Store) findSegments() (segmentNames, error) {
	names, err := s.opts.FS.List(s.opts.segmentPath())
	return segmentNames{s, names, make(map[segment.ID]bool)}, err
}

func (f segmentNames) missing(id segment.ID) bool {
	_, ok := slices.BinarySearch(f.names, filepath.Base(f.s.opts.segmentFile(id)))
	return !ok && !f.lent[id]
}

// ofCheckpoint reports whether no segment of a checkpoint is missing.
func (f segmentNames) ofCheckpoint(kv meta.Reader) (bool, error) {
	usage, err := extent.LoadUsage(kv)
	if err != nil {
		return false, err
	}
	if err := eachAlias(kv, func(id segment.ID, _ rows.Alias) { f.lent[id] = true }); err != nil {
		return false, err
	}
	return !slices.ContainsFunc(usage.Segments(), f.missing), nil
}

// ofRecord reports whether no segment of a record is missing. That of a record that a power
// cut can have left, or that has the data, need not be there.
func (f segmentNames) ofRecord(rec journal.Record) bool {
	r, err := record.Decode(rec.Payload, f.s.parts.sb.Unit)
	if one, ok := r.(*record.Alias); ok {
		f.lent[one.ID] = true
	}
	w, ok := r.(*record.Write)
	if !rec.Durable || err != nil || !ok || w.Inline != nil {
		return err == nil || !rec.Durable
	}
	return !slices.ContainsFunc(w.Fresh, func(x record.FreshExtent) bool { return f.missing(x.Addr.Segment) })
}
