package backstore

import (
	"context"
	"fmt"
)

// A file is a volume in a name space of its own: its size is any number of
// bytes, it can shrink, and it can be renamed. Everything else, map and extents,
// snapshots, tokens and copies, is the same.

// CreateFile makes an empty file. It is durable on return.
func (s *Store) CreateFile(ctx context.Context, name string) (*Volume, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	v := s.newVolume(name)
	v.file = true
	return v, s.createVolume(ctx, v)
}

// CloneFile makes a file that equals a volume or a file as it is now, and its
// size. It is durable on return.
func (s *Store) CloneFile(ctx context.Context, src *Volume, name string) (*Volume, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	v := s.newVolume(name)
	v.file = true
	return v, s.clone(ctx, src, v)
}

// File returns the file of that name.
func (s *Store) File(name string) (*Volume, error) {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	v := s.byName[nameKey{name, true}]
	if v == nil {
		return nil, fmt.Errorf("file %s: %w", name, ErrNotFound)
	}
	return v, nil
}

// Files returns all files by name.
func (s *Store) Files() []*Volume {
	all := s.spaces()
	for i, v := range all {
		if v.file {
			return all[i:]
		}
	}
	return nil
}

// DeleteFile deletes a file, as DeleteVolume does a volume. It is durable after
// a flush.
func (s *Store) DeleteFile(ctx context.Context, name string) error {
	v, err := s.File(name)
	if err != nil {
		return err
	}
	return s.deleteSpace(ctx, v)
}

// RenameFile gives a file another name, in one step with the deletion of the
// file that has the name already: a crash leaves one or the other, never
// neither. It is durable on return.
func (s *Store) RenameFile(ctx context.Context, from, to string) error {
	if err := checkName(to); err != nil {
		return err
	}
	v, err := s.File(from)
	if err != nil || from == to {
		return err
	}
	old, _ := s.File(to)
	rename := func() error { return s.renameFile(ctx, v, old, to) }
	if old == nil {
		err = rename()
	} else {
		err = old.changeWatched(ctx, 0, MaxVolumeBytes/BlockLength, rename)
	}
	if err != nil {
		return err
	}
	return s.Flush(ctx)
}

// renameFile renames v, in place of old if that is not nil.
func (s *Store) renameFile(ctx context.Context, v, old *Volume, to string) error {
	var e enc
	e.byte(recRenameFile)
	e.uint(v.number)
	e.bytes([]byte(to))
	unused := len(e.b)
	if err := s.begin(ctx, unused); err != nil {
		return err
	}
	defer func() { s.end(unused) }()
	if old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		if err := old.watched.check(0, MaxVolumeBytes/BlockLength); err != nil {
			return err
		}
	}
	s.tableMu.Lock()
	if s.volumes[v.number] != v || s.byName[nameKey{to, true}] != old {
		s.tableMu.Unlock()
		return fmt.Errorf("rename %v to %s: %w meanwhile", v, to, ErrChanged)
	}
	s.moveName(v, to)
	s.journal.Append(e.b, nil)
	unused = 0
	s.tableMu.Unlock()
	if old == nil {
		return nil
	}
	if err := s.dropVolume(old); err != nil {
		return s.fail(err)
	}
	return nil
}

// moveName gives v the name, whoever has it. s.tableMu is held.
func (s *Store) moveName(v *Volume, to string) {
	delete(s.byName, v.key())
	v.named.Store(&to)
	s.byName[v.key()] = v
}

// redoRename renames the file of a journal record again.
func (s *Store) redoRename(d *dec) error {
	v, err := s.volumeNumber(d.uint())
	if err != nil {
		return err
	}
	to := string(d.bytes())
	if d.err != nil {
		return d.err
	}
	old := s.byName[nameKey{to, true}]
	s.moveName(v, to)
	if old == nil || old == v {
		return nil
	}
	return s.dropVolume(old)
}

// IsFile reports whether v is a file.
func (v *Volume) IsFile() bool { return v.file }

func checkFileSize(size int64) error {
	if size < 0 || size > MaxVolumeBytes {
		return fmt.Errorf("%w: file of %d bytes; up to 1 PiB are possible", ErrInvalid, size)
	}
	return nil
}

// Truncate sets the size of a file. What is cut off is gone, and reads as zeros
// where the file grows again. It is durable after a flush; a crash before can
// leave the old size with zeros at its end.
func (v *Volume) Truncate(ctx context.Context, size int64) error {
	if !v.file {
		return fmt.Errorf("%w: %v is not a file and cannot shrink", ErrInvalid, v)
	}
	if err := checkFileSize(size); err != nil {
		return err
	}
	if err := v.checkWritable(); err != nil {
		return err
	}
	if old := v.Size(); size < old {
		// Zeros in what is left of the last block: nothing looks at them while the
		// file is shorter, and they are right when it grows.
		if err := v.Zero(ctx, size, old-size); err != nil {
			return err
		}
	}
	return v.setSize(ctx, size)
}
