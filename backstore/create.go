package backstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"odx/backstore/journal"
	"odx/backstore/meta"
)

// creatingName is a file that is there while a store is being made: what is next
// to it before there is a superblock holds nothing.
const creatingName = "creating"

// findSuperblock returns the superblock from whichever copy is right, and the
// directories of the copies that are not. found is false where there is no
// store and nothing of one. For a store of another format it returns what it knows
// of it and a *FormatError.
func (s *Store) findSuperblock() (sb superblock, bad []string, found bool, err error) {
	fsys, dir := s.opts.FS, s.opts.Dir
	damaged := false
	var wrong []error
	var before superblock // of an older format
	var older error
	for _, in := range superblocks(dir) {
		one, rerr := readSuperblock(fsys, filepath.Join(in, superblockName))
		var other *FormatError
		switch {
		case errors.As(rerr, &other) && other.Version < formatVersion:
			// Its second copy is written when it is of this format: next to one of
			// those it is an older version of the file.
			if bad = append(bad, in); older == nil {
				before, older = one, rerr
			}
		case errors.As(rerr, &other):
			return sb, nil, false, rerr
		case rerr != nil:
			bad = append(bad, in)
			damaged = damaged || !errors.Is(rerr, fs.ErrNotExist)
			wrong = append(wrong, rerr)
		case !found:
			sb, found = one, true
		case one.generation > sb.generation:
			sb, bad = one, append(bad, dir)
		case one != sb:
			bad = append(bad, in)
		}
	}
	if found {
		return sb, bad, true, nil
	}
	if older != nil {
		return before, nil, false, older
	}
	rest, rerr := s.remains()
	if rerr != nil {
		return sb, nil, false, rerr
	}
	if damaged {
		return sb, nil, false, fmt.Errorf("%w: neither copy of the superblock is right: %w", ErrCorrupt, errors.Join(wrong...))
	}
	if rest != "" {
		return sb, nil, false, fmt.Errorf("%w: both copies of the superblock, %s and %s, are missing, but there is %s: restore one of them", ErrCorrupt,
			filepath.Join(dir, superblockName), filepath.Join(dir, checkpointDir, superblockName), rest)
	}
	return sb, nil, false, nil
}

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
		MergeFloor: s.opts.mergeFloor, Slack: mergeSlack, Create: s.reserve.Create,
	})
}
