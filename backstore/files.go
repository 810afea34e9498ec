package backstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"odx/backstore/record"
	"odx/backstore/rows"
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
	s.catalog.mu.Lock()
	defer s.catalog.mu.Unlock()
	v := s.catalog.byName[rows.Name{Name: name, File: true}]
	if v == nil {
		return nil, fmt.Errorf("file %s: %w", name, ErrNotFound)
	}
	return v, nil
}

// Files returns all files by name.
func (s *Store) Files() []*Volume {
	all := s.catalog.all()
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
// file that has the name already, and of those in deleted: a crash leaves all as it was
// before, or all as it is after. It is durable on return.
func (s *Store) RenameFile(ctx context.Context, from, to string, deleted ...string) error {
	r, err := s.replacementOf(from, to, deleted)
	if err != nil || from == to && len(deleted) == 0 {
		return err
	}
	return s.replaceWatched(ctx, r)
}

// NameFile is RenameFile to a name that no file has: ErrExists, if one has it.
func (s *Store) NameFile(ctx context.Context, from, to string, deleted ...string) error {
	r, err := s.replacementOf(from, to, deleted)
	if err != nil {
		return err
	}
	if r.old != nil {
		return fmt.Errorf("%v: %w", r.old, ErrExists)
	}
	return s.replaceWatched(ctx, r)
}

// RenameVolume gives a volume another name, which no volume has: ErrExists otherwise. Its
// identity stays. It is durable on return.
func (s *Store) RenameVolume(ctx context.Context, from, to string) error {
	if err := checkName(to); err != nil {
		return err
	}
	v, err := s.Volume(from)
	if err != nil {
		return err
	}
	if old, err := s.Volume(to); err == nil {
		return fmt.Errorf("%v: %w", old, ErrExists)
	}
	return s.replaceWatched(ctx, &replacement{file: v, to: to})
}

func (s *Store) replacementOf(from, to string, deleted []string) (*replacement, error) {
	if err := checkName(to); err != nil {
		return nil, err
	}
	v, err := s.File(from)
	if err != nil {
		return nil, err
	}
	r := &replacement{file: v, to: to}
	for _, name := range deleted {
		old, err := s.File(name)
		if err != nil {
			return nil, err
		}
		if old == v || slices.Contains(r.deleted, old) {
			return nil, fmt.Errorf("%w: %v is to be deleted and to be renamed, or to be deleted twice", ErrInvalid, old)
		}
		r.deleted = append(r.deleted, old)
	}
	if r.old, _ = s.File(to); r.old == v {
		r.old = nil
	} else if r.old != nil && !slices.Contains(r.deleted, r.old) {
		r.deleted = append(r.deleted, r.old)
	}
	// The order in which they are locked.
	slices.SortFunc(r.deleted, func(a, b *Volume) int { return cmp.Compare(a.number, b.number) })
	return r, nil
}

// replaceWatched does it, durably, after it has given notice to the watches over what is
// deleted.
func (s *Store) replaceWatched(ctx context.Context, r *replacement) error {
	for {
		for _, old := range r.deleted {
			if err := old.watched.giveNotice(ctx, 0, MaxVolumeBytes/BlockLength); err != nil {
				return err
			}
		}
		switch err := s.replace(ctx, r); err {
		case errWatched:
		case nil:
			return s.Flush(ctx)
		default:
			return err
		}
	}
}

func (r *replacement) record() *record.ReplaceFiles {
	rec := &record.ReplaceFiles{File: r.file.number, To: r.to}
	for _, old := range r.deleted {
		rec.Gone = append(rec.Gone, old.number)
	}
	return rec
}

func (s *Store) replace(ctx context.Context, r *replacement) error {
	op, err := s.begin(ctx, r.record())
	if err != nil {
		return err
	}
	defer op.End()
	for _, old := range r.deleted {
		old.mu.Lock()
		defer old.mu.Unlock()
		if err := old.checkUnprotected(); err != nil {
			return err
		}
		if err := old.watched.check(0, MaxVolumeBytes/BlockLength); err != nil {
			return err
		}
	}
	s.catalog.mu.Lock()
	if !s.catalog.standsAs(r) {
		s.catalog.mu.Unlock()
		return fmt.Errorf("rename %v to %s: %w", r.file, r.to, ErrChanged)
	}
	s.catalog.rename(r)
	op.Commit()
	s.catalog.mu.Unlock()
	if err := s.dropAll(r.deleted); err != nil {
		return s.life.fail(err)
	}
	return nil
}

// dropAll gives up files that have no names any more.
func (s *Store) dropAll(deleted []*Volume) error {
	for _, old := range deleted {
		if err := s.dropVolume(old); err != nil {
			return err
		}
	}
	return nil
}

// IsFile reports whether v is a file.
func (v *Volume) IsFile() bool { return v.file }

// Truncate sets the size of a file. What is cut off is lost, and reads as zeros
// where the file grows again. It is durable after a flush; a crash before can
// leave the old size with zeros at its end.
func (v *Volume) Truncate(ctx context.Context, size int64) error {
	if !v.file {
		return fmt.Errorf("%w: %v is not a file and cannot shrink", ErrInvalid, v)
	}
	if err := rows.CheckFileSize(size); err != nil {
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
	return v.setSize(ctx, size, v.checkThawed)
}
