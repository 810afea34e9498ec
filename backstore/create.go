package backstore

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"odx/backstore/journal"
	"odx/backstore/meta"
)

// creatingName is a file that is there while a store is being made: what is next
// to it before there is a superblock holds nothing.
const creatingName = "creating"

// remains returns a file that belongs to a store, if there is one.
func (s *Store) remains() (string, error) {
	fsys, dir := s.opts.FS, s.opts.Dir
	in := []string{".", segmentDir, journalDir, checkpointDir, "metadata", reserveDir, repairDir, damagedDir}
	if s.exists(creatingName) {
		// Only a store that was made has these.
		in = []string{segmentDir, reserveDir, damagedDir}
	}
	for _, in := range in {
		names, err := fsys.List(filepath.Join(dir, in))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if in != "." || name == "checkpoint" {
				return filepath.Join(dir, in, name), nil
			}
		}
	}
	return "", nil
}

// exists reports whether the store has a file of that name.
func (s *Store) exists(name string) bool {
	f, err := s.opts.FS.Open(filepath.Join(s.opts.Dir, name))
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// create makes a new store: an empty checkpoint first, the superblock last, which
// makes it one.
func (s *Store) create() error {
	fsys, dir := s.opts.FS, s.opts.Dir
	if !s.exists(creatingName) {
		f, err := fsys.Create(filepath.Join(dir, creatingName))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Close(), fsys.SyncDir(dir)); err != nil {
			return err
		}
	} else if err := s.removeUnfinished(); err != nil {
		return err
	}
	s.sb = newSuperblock(s.opts.DedupUnit / BlockLength)
	first := state{firstLSN: 1, nextNode: 1, nextExtent: 1, nextSegment: 1}
	if err := s.found(&first); err != nil {
		return err
	}
	return cmp.Or(s.sb.write(fsys, filepath.Join(dir, checkpointDir)), s.sb.write(fsys, dir))
}

// found makes the first checkpoint of a store, and its journal. There is none as
// long as the superblock is not written.
func (s *Store) found(first *state) (err error) {
	fsys, dir := s.opts.FS, s.opts.Dir
	if s.sb.place, err = fsys.Place(dir); err != nil {
		return err
	}
	if err := fsys.MkdirAll(filepath.Join(dir, checkpointDir)); err != nil {
		return err
	}
	kv, err := s.openRows()
	if err != nil {
		return err
	}
	err = kv.Store(0, func(put func(meta.Op) error) error {
		return put(meta.Op{Key: []byte(stateKey), Value: first.encode()})
	})
	if err = errors.Join(err, kv.Close()); err != nil {
		return err
	}
	return journal.Create(journal.Options{FS: fsys, Dir: filepath.Join(dir, journalDir), StoreID: s.sb.id, First: first.firstLSN})
}

// removeUnfinished removes what a create that did not end has left.
func (s *Store) removeUnfinished() error {
	return errors.Join(s.emptyDir(checkpointDir), s.emptyDir(journalDir))
}

// emptyDir removes the files in a directory of the store.
func (s *Store) emptyDir(name string) error {
	fsys, in := s.opts.FS, filepath.Join(s.opts.Dir, name)
	names, err := fsys.List(in)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := fsys.Remove(filepath.Join(in, name)); err != nil {
			return err
		}
	}
	return fsys.SyncDir(in)
}

// openRows opens the rows of metadata.
func (s *Store) openRows() (*meta.DB, error) {
	if err := s.openReserve(); err != nil {
		return nil, err
	}
	return meta.Open(meta.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.opts.Dir, checkpointDir), StoreID: s.sb.id, Copies: s.opts.MetadataCopies,
		// Over an overlay nothing is mended, and nothing is to say that it was.
		ReadOnly:   s.opts.ReadOnly,
		CacheBytes: s.opts.CacheBytes / 8, Log: s.log,
		Mended: s.noteMended, MergeFloor: s.opts.mergeFloor, Slack: mergeSlack, Reserve: s.reserve,
	})
}
