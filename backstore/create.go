package backstore

import (
	"errors"
	"fmt"
	"path/filepath"

	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/rows"
)

// create makes a new store: an empty checkpoint first, the superblock last, which
// makes it one.
func (s *Store) create() error {
	fsys, dir := s.opts.FS, s.opts.Dir
	if !s.opts.dir().Exists(layout.CreatingName) {
		if err := s.opts.dir().Mark(layout.CreatingName); err != nil {
			return err
		}
	} else if err := s.removeUnfinished(); err != nil {
		return err
	}
	s.parts.sb = layout.NewSuperblock(s.opts.DedupUnit / BlockLength)
	s.parts.sb.Engine = s.opts.Engine.Kind()
	if key := s.opts.FingerprintKey; key != nil {
		s.parts.sb.FingerprintKey = *key
	}
	first := rows.Checkpoint{FirstLSN: 1, NextNode: 1, NextExtent: 1, NextSegment: 1}
	if err := s.found(&first); err != nil {
		return err
	}
	if err := s.parts.sb.Write(fsys, filepath.Join(dir, layout.CheckpointDir)); err != nil {
		return err
	}
	return s.parts.sb.Write(fsys, dir)
}

// found makes the first checkpoint of a store, and its journal. There is none as
// long as the superblock is not written.
func (s *Store) found(first *rows.Checkpoint) (err error) {
	fsys, dir := s.opts.FS, s.opts.Dir
	if s.parts.sb.Place, err = fsys.Place(dir); err != nil {
		return err
	}
	if err := fsys.MkdirAll(filepath.Join(dir, layout.CheckpointDir)); err != nil {
		return err
	}
	kv, err := s.openRows(nil)
	if err != nil {
		return err
	}
	err = kv.Store(0, func(put func(meta.Op) error) error {
		return put(meta.Op{Key: []byte(rows.CheckpointKey), Value: first.Encode()})
	})
	if err = errors.Join(err, kv.Close()); err != nil {
		return err
	}
	return journal.Create(journal.Options{FS: fsys, Dir: filepath.Join(dir, layout.JournalDir), StoreID: s.parts.sb.ID, First: first.FirstLSN})
}

// removeUnfinished removes what a create that did not end has left.
func (s *Store) removeUnfinished() error {
	return errors.Join(s.opts.dir().Empty(layout.CheckpointDir), s.opts.dir().Empty(layout.JournalDir))
}

// engine returns the engine that has the rows of metadata.
func (s *Store) engine() (meta.Engine, error) {
	for _, e := range []meta.Engine{meta.Tables(), s.opts.Engine} {
		if e.Kind() == s.parts.sb.Engine {
			return e, nil
		}
	}
	return nil, fmt.Errorf("%w: the metadata of the store is in the engine %v, which this program does not have: use odx-rados", ErrInvalid, s.parts.sb.Engine)
}

// openRows opens the rows of metadata. unneeded is that of meta.Options.
func (s *Store) openRows(unneeded func(meta.Reader) (bool, error)) (meta.KV, error) {
	engine, err := s.engine()
	if err != nil {
		return nil, err
	}
	if err := s.space.openReserve(); err != nil {
		return nil, err
	}
	return engine.Open(meta.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.opts.Dir, layout.CheckpointDir), StoreID: s.parts.sb.ID, Copies: s.opts.MetadataCopies,
		// Over an overlay nothing is mended, and nothing is to report that it was.
		ReadOnly:   s.opts.ReadOnly,
		CacheBytes: s.opts.CacheBytes / 8, Log: s.log,
		Mended: s.damage.NoteMended, MergeFloor: s.opts.tuning.mergeFloor, Slack: mergeSlack, Reserve: s.space.reserve,
		Unneeded: unneeded,
	})
}
