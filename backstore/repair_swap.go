package backstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"odx/backstore/layout"
	"odx/backstore/vfs"
)

// probeName is the file that proves that files can be made in a directory.
const probeName = "repair-probe"

// changedDirs returns the directories that a repair in place changes.
func (m *repair) changedDirs() (dirs []string) {
	for _, name := range []string{".", layout.CheckpointDir, layout.JournalDir, layout.DamagedDir} {
		dirs = append(dirs, filepath.Join(m.o.Dir, name))
	}
	return append(dirs, m.o.segmentPath())
}

// prepareSwap proves, before a repair in place does its work, that what it makes can
// be put where it belongs.
func (m *repair) prepareSwap() error {
	kept := filepath.Join(m.o.Dir, layout.DamagedDir)
	if err := m.fsys.MkdirAll(kept); err != nil {
		return fmt.Errorf("what the repair replaces is to be kept in %s: %w; nothing was changed", kept, accessError(err))
	}
	name := filepath.Join(m.o.Dir, layout.SuperblockName)
	if _, err := m.fsys.List(name); err == nil {
		return fmt.Errorf("%w: %s is a directory, in whose place the superblock cannot be put: remove it; nothing was changed", ErrCorrupt, name)
	}
	if err := m.tryOpen(name); errors.Is(err, syscall.EPERM) { // a file that may only not be written can be replaced
		return fmt.Errorf("the superblock cannot be replaced: %w; nothing was changed", accessError(err))
	}
	if err := m.tryOpen(filepath.Join(m.o.Dir, layout.LockName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the store cannot be locked for the repair: %w; nothing was changed", accessError(err))
	}
	for _, dir := range m.changedDirs() {
		if err := m.probe(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("a repair in place creates and removes files in %s: %w; nothing was changed", dir, accessError(err))
		}
	}
	return nil
}

// tryOpen returns why a file cannot be opened.
func (m *repair) tryOpen(name string) error {
	f, err := m.fsys.Open(name)
	if err != nil {
		return err
	}
	return f.Close()
}

// probe creates and removes a file in a directory.
func (m *repair) probe(dir string) error {
	name := filepath.Join(dir, probeName)
	if err := m.fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := m.fsys.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), m.fsys.Remove(name))
}

// removeProbes removes what prepareSwap has left where it failed, and the directory for
// what the repair replaces where there is nothing in it.
func (m *repair) removeProbes() error {
	for _, dir := range m.changedDirs() {
		if err := m.fsys.Remove(filepath.Join(dir, probeName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	kept := filepath.Join(m.o.Dir, layout.DamagedDir)
	if names, err := m.fsys.List(kept); err != nil || len(names) > 0 {
		return nil // there is none, or it is of an earlier repair
	}
	return errors.Join(m.fsys.Remove(kept), m.fsys.SyncDir(m.o.Dir))
}

// noteRepaired marks what was made as complete, with the result in it: from here on
// the repair is ended, whatever interrupts it.
func (m *repair) noteRepaired() error {
	text, err := m.result.encode()
	if err != nil {
		return err
	}
	return vfs.ReplaceFile(m.to.opts.FS, filepath.Join(m.o.Dir, layout.RepairDir), layout.RepairedTag, func(f vfs.File) error {
		_, err := f.WriteAt(text, 0)
		return err
	})
}

// swap puts what was made in place of what is damaged. When it is interrupted, the
// next repair goes on with it; until then the store cannot be opened.
func (m *repair) swap() error {
	dir := m.o.Dir
	s := newStore(m.o.Options)
	err := s.own(context.Background())
	if err == nil {
		m.fsys = s.opts.FS
		err = errors.Join(m.swapAll(), s.life.owner.Release())
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: the repaired metadata is complete in %s and cannot be put in its place; what was replaced so far is in %s, and no data is lost. "+
		"The store is not opened before that is ended: remove the cause, and run odx store repair --in-place again",
		accessError(err), filepath.Join(dir, layout.RepairDir), filepath.Join(dir, layout.DamagedDir))
}

func (m *repair) swapAll() error {
	if err := m.proveMade(); err != nil {
		return err
	}
	for _, name := range []string{layout.CheckpointDir, layout.JournalDir} {
		if err := m.swapOne(name); err != nil {
			return err
		}
	}
	sb, err := layout.ReadSuperblock(m.fsys, filepath.Join(m.o.Dir, layout.CheckpointDir, layout.SuperblockName))
	if err != nil {
		return err
	}
	if err := sb.Write(m.fsys, m.o.Dir); err != nil {
		return err
	}
	in := filepath.Join(m.o.Dir, layout.RepairDir)
	if err := errors.Join(m.fsys.Remove(filepath.Join(in, layout.RepairedTag)), m.fsys.SyncDir(in)); err != nil {
		return err
	}
	if err := m.removeMade(); err != nil {
		m.o.Log.WithError(err).WithField("dir", in).Warn("the store is repaired; what is left in this directory is not needed, and could not be removed")
	}
	return nil
}

// proveMade proves that the last file of the metadata that was made is there, or in its
// place: a file by the name of layout.RepairedTag alone replaces nothing.
func (m *repair) proveMade() error {
	made := filepath.Join(m.o.Dir, layout.RepairDir, layout.CheckpointDir)
	if _, err := m.fsys.List(made); errors.Is(err, fs.ErrNotExist) {
		made = filepath.Join(m.o.Dir, layout.CheckpointDir)
	}
	_, err := layout.ReadSuperblock(m.fsys, filepath.Join(made, layout.SuperblockName))
	return err
}

// swapOne keeps what is in the directory of the store under a name and puts what was
// made there.
func (m *repair) swapOne(name string) error {
	dir, made := m.o.Dir, filepath.Join(m.o.Dir, layout.RepairDir, name)
	if _, err := m.fsys.List(made); errors.Is(err, fs.ErrNotExist) {
		return nil // it is in its place
	}
	kept := filepath.Join(dir, layout.DamagedDir)
	if err := m.fsys.MkdirAll(kept); err != nil {
		return err
	}
	names, err := m.fsys.List(kept)
	if err != nil {
		return err
	}
	to := name
	for i := 2; slices.Contains(names, to); i++ {
		to = fmt.Sprint(name, ".", i)
	}
	if err := m.fsys.Rename(filepath.Join(dir, name), filepath.Join(kept, to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, in := range []string{kept, dir} {
		if err := m.fsys.SyncDir(in); err != nil {
			return err
		}
	}
	if err := m.fsys.Rename(made, filepath.Join(dir, name)); err != nil {
		return err
	}
	return errors.Join(m.fsys.SyncDir(dir), m.fsys.SyncDir(filepath.Join(dir, layout.RepairDir)))
}

// removeMade removes the directory where a repair in place works, with what is left in
// it: first of all the file that marks it as complete.
func (m *repair) removeMade() error {
	in := filepath.Join(m.o.Dir, layout.RepairDir)
	if _, err := m.fsys.List(in); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := m.fsys.Remove(filepath.Join(in, layout.RepairedTag)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.fsys.SyncDir(in); err != nil {
		return err
	}
	made := layout.Directory{FS: m.fsys, Path: in}
	for _, sub := range []string{layout.CheckpointDir, layout.JournalDir, layout.ReserveDir, "."} {
		if err := made.Empty(sub); err != nil {
			return err
		}
		if err := m.fsys.Remove(filepath.Join(in, sub)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return m.fsys.SyncDir(m.o.Dir)
}

// removeSegments removes the segments that a repair in place has added, for blocks
// that are lost.
func (m *repair) removeSegments() error {
	if m.to.parts.segments == nil {
		return nil
	}
	var errs []error
	for _, id := range m.to.parts.segments.List() {
		if slices.Contains(m.from.parts.segments.List(), id) {
			continue
		}
		if err := m.fsys.Remove(m.to.opts.segmentFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// resume ends a repair in place that was interrupted after it was complete.
func (m *repair) resume() (done bool, err error) {
	f, err := m.fsys.Open(filepath.Join(m.o.Dir, layout.RepairDir, layout.RepairedTag))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	size, err := f.Size()
	text := make([]byte, size)
	if err == nil {
		_, err = f.ReadAt(text, 0)
	}
	if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if found, err := decodeRepaired(text); err == nil {
		*m.result = found
	} else {
		m.o.Log.WithError(err).Warn("what an interrupted repair found is not known any more")
	}
	return true, m.swap()
}
