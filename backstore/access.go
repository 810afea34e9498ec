package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/segment"
	"odx/backstore/vfs"
)

// A file that this user may not open is not lost: the error says which user
// may not, and what to do.

// whoami names the user of this process.
func whoami() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return fmt.Sprintf("user %s (%s)", u.Username, id)
	}
	return "user " + id
}

// accessError adds what to do to an error about permissions.
func accessError(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: this process runs as %s: give that user the store (chown -R, chmod u+rwX, and chattr -i where a file is immutable), or run odx as the user it belongs to", err, whoami())
}

// checkAccess proves, before anything is opened, that files can be made in the
// directories of the store, and that none is a link to nothing.
func (s *Store) checkAccess() error {
	fsys, dir := s.opts.FS, s.opts.Dir
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dirs := []string{dir}
	for _, name := range []string{layout.SegmentDir, layout.JournalDir, layout.CheckpointDir, layout.ReserveDir} {
		in := filepath.Join(dir, name)
		if !slices.Contains(names, name) {
			continue
		}
		if _, err := fsys.List(in); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is a symbolic link to a directory that does not exist: mount the file system that it is on, or put the directory back", ErrCorrupt, in)
		}
		dirs = append(dirs, in)
	}
	p, ok := fsys.(vfs.Prober)
	if !ok || s.opts.ReadOnly {
		return nil
	}
	for _, in := range dirs {
		err := p.MayChange(in)
		if errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("%w: odx serve --rescue serves what is there, read-only", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lookAtSegments notes the segments that cannot be opened and have data: reads of it
// fail until that changes.
func (s *Store) lookAtSegments(ctx context.Context) {
	var first string
	var why error
	more, locked := 0, 0
	for _, id := range s.parts.segments.List() {
		if ctx.Err() != nil {
			return
		}
		if s.parts.usage.Live(id) == 0 {
			continue // whatever has this name is not needed
		}
		toRead, err := s.tryOpen(id)
		if toRead {
			locked++
		}
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist): // it was removed concurrently, or is noted
		case why == nil:
			first, why = s.opts.segmentFile(id), err
		default:
			more++
		}
	}
	if locked > 0 {
		s.log.WithField("segments", locked).Warn("segments may be read and not written by " + whoami())
	}
	if why == nil {
		return
	}
	if more > 0 {
		first = fmt.Sprintf("%s and %d segments more", first, more)
	}
	s.damage.Note(first, fmt.Errorf("data that lies there cannot be read: %w", accessError(why)))
}

// tryOpen returns why a segment cannot be opened, and whether it may be opened for reading
// alone.
func (s *Store) tryOpen(id segment.ID) (toRead bool, err error) {
	name := s.opts.segmentFile(id)
	f, err := s.opts.FS.Open(name)
	if r, ok := s.opts.FS.(vfs.Reader); ok && errors.Is(err, fs.ErrPermission) {
		f, err = r.OpenToRead(name)
		toRead = err == nil
	}
	if err == nil {
		_ = f.Close() // nothing was written
	}
	return toRead, err
}

// maySee returns an error where a segment with data may not be read: nothing can be proved
// of the store then, and nothing is known to be wrong.
func (s *Store) maySee(ctx context.Context) error {
	for _, id := range s.parts.segments.List() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.parts.usage.Live(id) == 0 {
			continue
		}
		if _, err := s.tryOpen(id); errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("the store cannot be checked, and nothing is known to be wrong with it: %w", accessError(err))
		}
	}
	return nil
}

// deniedJournal returns why a file of the journal that is needed may not be opened, nil for
// another error. Nothing is lost then, and what is there without the file is not what was
// written last, so the store is not shown either.
func deniedJournal(err error) error {
	if damage, ok := errors.AsType[*journal.DamageError](err); ok {
		for _, d := range damage.Damages {
			if errors.Is(d.Err, fs.ErrPermission) {
				return fmt.Errorf("the journal is needed from record %d on, and nothing of it is known to be lost: %w", d.First, d.Err)
			}
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// refuseFormat refuses a store of another format before it is claimed: a claim changes
// the lock.
func (s *Store) refuseFormat() error {
	if s.opts.ReadOnly {
		return nil
	}
	other := false
	for _, dir := range layout.Superblocks(s.opts.Dir) {
		_, err := layout.ReadSuperblock(s.opts.FS, filepath.Join(dir, layout.SuperblockName))
		if err == nil {
			return nil
		}
		_, is := errors.AsType[*layout.FormatError](err)
		other = other || is
	}
	if !other {
		return nil
	}
	_, _, _, err := s.opts.dir().FindSuperblock()
	if _, is := errors.AsType[*layout.FormatError](err); is {
		return err
	}
	return nil // what else is wrong its owner finds
}
