package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"odx/backstore/vfs"
)

// spare is a file for future use, new or reused. Its content has no meaning.
type spare struct {
	name  string
	bytes int64
	err   error // error of its creation
}

// useSpare renames a spare file. It returns nil if there is no suitable one.
func (j *Journal) useSpare(name string, need int64) (vfs.File, int64, error) {
	if len(j.spares) == 0 && j.preparing != nil {
		j.addSpare(<-j.preparing)
	}
	for {
		i := slices.IndexFunc(j.spares, func(s spare) bool { return s.bytes >= need })
		if i < 0 {
			return nil, 0, nil
		}
		s := j.spares[i]
		// After an error the next attempt does not use the spare.
		j.spares = slices.Delete(j.spares, i, i+1)
		if !whole(j.o.FS, s) {
			if err := removeIfThere(j.o.FS, s.name); err != nil {
				j.taken[s.name] = true
				j.o.left(s.name, err)
			}
			continue
		}
		if err := j.o.FS.Rename(s.name, name); err != nil {
			return nil, 0, err
		}
		handle, err := j.o.FS.Open(name)
		if err != nil {
			return nil, 0, err
		}
		return handle, s.bytes, nil
	}
}

// whole reports whether a spare file still has the blocks that it had: it may have been
// removed or truncated.
func whole(fsys vfs.FS, s spare) bool {
	f, err := fsys.Open(s.name)
	if err != nil {
		return false
	}
	defer f.Close()
	size, err := f.Size()
	return err == nil && size >= s.bytes && f.Allocate(s.bytes) == nil
}

// prepareSpare starts the creation of a spare file, if one is missing.
func (j *Journal) prepareSpare() {
	select {
	case s := <-j.preparing:
		j.addSpare(s)
	default:
	}
	if len(j.spares) >= j.wantedSpares() || j.preparing != nil {
		return
	}
	s := spare{name: j.spareName(), bytes: j.nextBytes}
	f, err := j.allocate(s)
	if least := min(firstFileBytes, s.bytes); full(err) && s.bytes > least {
		s.bytes = least
		f, err = j.allocate(s)
	}
	if j.spareErr = err; err == nil {
		j.prepare(s, func() error { return j.fill(f, s) })
	}
}

// prepare makes s a spare when create has returned. It does not wait for that.
func (j *Journal) prepare(s spare, create func() error) {
	made := make(chan spare, 1)
	j.preparing, j.spareErr = made, nil
	go func() {
		s.err = create()
		made <- s
	}()
}

// allocate creates a file with allocated blocks, or removes it after an error.
func (j *Journal) allocate(s spare) (vfs.File, error) {
	f, err := j.o.FS.Create(s.name)
	if errors.Is(err, fs.ErrExist) {
		if err = j.removeFile(s.name); err != nil {
			j.taken[s.name] = true // another file has the name: the next spare has another name
			j.o.left(s.name, err)
			return nil, err
		}
		f, err = j.o.FS.Create(s.name)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Allocate(s.bytes); err != nil {
		return nil, errors.Join(err, f.Close(), j.o.FS.Remove(s.name))
	}
	return f, nil
}

// removeFile removes a file that can be opened.
func (j *Journal) removeFile(name string) error {
	f, err := j.o.FS.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), j.o.FS.Remove(name))
}

// addSpare adds the result of prepareSpare.
func (j *Journal) addSpare(s spare) {
	j.preparing, j.spareErr = nil, s.err
	if s.err == nil {
		j.spares = append(j.spares, s)
		j.nextBytes = min(max(2*s.bytes, j.nextBytes), j.o.FileBytes)
	}
}

// spareName returns an unused name for a spare file.
func (j *Journal) spareName() string {
	for i := 0; ; i++ {
		name := filepath.Join(j.o.Dir, fmt.Sprintf("%s%d%s", sparePart, i, suffix))
		if !j.taken[name] && !slices.ContainsFunc(j.spares, func(s spare) bool { return s.name == name }) {
			return name
		}
	}
}

// isSpareName reports whether a name is that of a spare file.
func isSpareName(base string) bool {
	return strings.HasPrefix(base, sparePart) && strings.HasSuffix(base, suffix)
}

// Ready starts the creation of missing spare files. It returns the error of the last
// attempt, or nil while one is running. If the error persists, records will fail on a
// full disk.
func (j *Journal) Ready() error {
	j.acquire()
	defer j.release()
	if j.finished {
		return ErrClosed
	}
	j.prepareSpare()
	j.noteRoom()
	if len(j.spares) >= j.wantedSpares() {
		return nil
	}
	return j.spareErr
}

// Lacks reports whether a spare file is missing and none is being created.
func (j *Journal) Lacks() bool {
	j.acquire()
	defer j.release()
	return !j.finished && j.preparing == nil && len(j.spares) < j.wantedSpares()
}

// Give makes a file that is no longer needed a spare of the journal, with its blocks,
// which other programs cannot take; a file for which there is no use is removed. The file
// keeps its name until it is all zeros: if the process ends before, it is still a file of
// its owner.
func (j *Journal) Give(name string) error {
	j.acquire()
	defer j.release()
	if j.finished || j.preparing != nil || len(j.spares) >= j.wantedSpares() {
		return j.o.FS.Remove(name)
	}
	bytes, err := assigned(j.o.FS, name)
	if err != nil || bytes < 2*headerBlock {
		return errors.Join(err, j.o.FS.Remove(name))
	}
	f, err := j.o.FS.Open(name)
	if err != nil {
		return err
	}
	s := spare{name: j.spareName(), bytes: bytes}
	j.prepare(s, func() error {
		if err := j.zero(f, bytes); err != nil {
			return err
		}
		return errors.Join(j.o.FS.Rename(name, s.name), j.o.FS.SyncDir(j.o.Dir))
	})
	return nil
}

// wantedSpares is the number of spare files to keep: one more while the newest file is
// not preallocated, since it will not become a spare.
func (j *Journal) wantedSpares() int {
	if n := len(j.files); n > 0 && j.files[n-1].bytes == 0 {
		return readySpares + 1
	}
	return readySpares
}

// fill is zero for a new file, which it removes after an error.
func (j *Journal) fill(f vfs.File, s spare) error {
	if err := j.zero(f, s.bytes); err != nil {
		return errors.Join(err, j.o.FS.Remove(s.name))
	}
	return nil
}

// extend makes a file one hole, durably.
func extend(f vfs.File, bytes int64) error {
	err := f.Truncate(0)
	if err == nil {
		err = f.Truncate(bytes)
	}
	if err == nil {
		err = f.Sync()
	}
	return err
}

// zero fills a file with zeros, durably, and closes it. Closing the journal ends it.
func (j *Journal) zero(f vfs.File, bytes int64) (err error) {
	if j.o.Sparse {
		return errors.Join(extend(f, bytes), f.Close())
	}
	piece := make([]byte, min(bytes, 1<<20))
	for off := int64(0); off < bytes && err == nil; off += int64(len(piece)) {
		select {
		case <-j.stop:
			err = ErrClosed
		default:
			_, err = f.WriteAt(piece[:min(int64(len(piece)), bytes-off)], off)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
