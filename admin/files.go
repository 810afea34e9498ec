package admin

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
	"odx/vhd"
)

// Filer administers the files of a store. Copying a file takes constant time,
// because the copy shares its data.
type Filer interface {
	// Files lists all files, by name.
	Files(ctx context.Context) ([]File, error)
	// CreateFile creates a file of size bytes that reads as zeros.
	CreateFile(ctx context.Context, name string, size int64) (File, error)
	// CopyFile creates a file that equals a volume, or a file whose name follows
	// FilePrefix, as it is now.
	CopyFile(ctx context.Context, from, name string) (File, error)
	// ResizeFile sets the size of a file. Data beyond it is lost.
	ResizeFile(ctx context.Context, name string, size int64) (File, error)
	// RenameFile renames a file. It replaces a file of that name, unless that is the
	// parent of differencing disks (vhd.ErrHasChildren).
	RenameFile(ctx context.Context, name, to string) (File, error)
	// DeleteFile deletes a file, unless it is the parent of differencing disks
	// (vhd.ErrHasChildren).
	DeleteFile(ctx context.Context, name string) error
	// DeleteParent deletes a file although differencing disks are over it, which cannot
	// be read any more then.
	DeleteParent(ctx context.Context, name string) error
	// StartFile creates a hidden file under a random name, which FinishFile renames
	// when it is complete. The caller finishes or deletes it; otherwise it is removed
	// after an hour without use, or when the store is opened again.
	StartFile(ctx context.Context, r FileStart) (File, error)
	// FinishFile renames it, in one step.
	FinishFile(ctx context.Context, r FileFinish) (File, error)
}

// FileStart are the arguments of StartFile.
type FileStart struct {
	// Name is the later name of the file, from which its format follows.
	Name string
	// SizeBytes is its length; it reads as zeros.
	SizeBytes int64
	// From is a volume, or FilePrefix and the name of a file, whose present contents
	// the file gets.
	From string
}

// FileFinish are the arguments of FinishFile.
type FileFinish struct {
	Name string
	// Scratch is the name that StartFile returned.
	Scratch string
	// Overwrite allows to replace a file of that name.
	Overwrite bool
}

// FilePrefix begins the name of a file where a name can be that of a volume or a file.
const FilePrefix = offload.FilePrefix

// File describes a file of the store.
type File struct {
	Name string
	// ID is the file's permanent number in hexadecimal.
	ID        string
	SizeBytes int64
	// Created is zero where the store does not know it.
	Created time.Time
}

// CheckFileName checks the name of a file: a path that begins with no slash and
// no dot, and has no empty part and no . or .. in it.
func CheckFileName(name string) error {
	if name == "" || name[0] == '/' || name[0] == '.' || path.Clean(name) != name {
		return fmt.Errorf("%w: file name %q; write a path like images/base.vhdx", blockdev.ErrInvalid, name)
	}
	return nil
}

// Object returns the volume of that name, or the file whose name follows FilePrefix.
func (s *Store) Object(name string) (*backstore.Volume, error) {
	if file, ok := strings.CutPrefix(name, FilePrefix); ok {
		return s.file(file)
	}
	return s.volume(name)
}

// file returns a file of the store by name. Of the hidden ones it returns those of
// StartFile, whose random names only their clients know.
func (s *Store) file(name string) (*backstore.Volume, error) {
	if disks := s.openedDisks(); disks != nil && vhd.IsScratch(name) {
		disks.Touch(name)
	} else if strings.HasPrefix(name, hiddenPrefix) {
		return nil, fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return s.store.File(name)
}

// Files implements Administrator.
func (s *Store) Files(context.Context) ([]File, error) { return s.files(), nil }

// files describes the files of the store, by name.
func (s *Store) files() []File {
	all := []File{}
	for _, v := range s.store.Files() {
		if !strings.HasPrefix(v.Name(), hiddenPrefix) {
			all = append(all, describeFile(v))
		}
	}
	return all
}

func describeFile(v *backstore.Volume) File {
	return File{Name: v.Name(), ID: fmt.Sprintf("%x", v.ID()), SizeBytes: v.Size(), Created: v.Created().UTC()}
}

// CreateFile creates a file of size bytes that reads as zeros. It is durable on return.
func (s *Store) CreateFile(ctx context.Context, name string, size int64) (File, error) {
	if err := CheckFileName(name); err != nil {
		return File{}, err
	}
	v, err := s.store.CreateFile(ctx, name)
	if err != nil {
		return File{}, err
	}
	if err := v.Truncate(ctx, size); err != nil {
		return File{}, errors.Join(err, s.store.DeleteFile(ctx, name))
	}
	s.log.WithField("file", name).Info("file created")
	return describeFile(v), s.store.Flush(ctx)
}

// CopyFile creates a file that equals an object (see Object) as it is now, and shares
// its data. It is durable on return.
func (s *Store) CopyFile(ctx context.Context, from, name string) (File, error) {
	if err := CheckFileName(name); err != nil {
		return File{}, err
	}
	src, err := s.Object(from)
	if err != nil {
		return File{}, err
	}
	v, err := s.store.CloneFile(ctx, src, name)
	if err != nil {
		return File{}, err
	}
	s.log.WithField("file", name).WithField("origin", from).Info("file copied")
	return describeFile(v), nil
}

// StartFile implements Administrator.
func (s *Store) StartFile(ctx context.Context, r FileStart) (File, error) {
	if r.From != "" && r.SizeBytes != 0 {
		return File{}, fmt.Errorf("%w: from and size_bytes together", blockdev.ErrInvalid)
	}
	if err := CheckFileName(r.Name); err != nil {
		return File{}, err
	}
	disks, err := s.DiskManager(ctx)
	if err != nil {
		return File{}, err
	}
	var v *backstore.Volume
	if r.From == "" {
		v, err = disks.NewScratch(ctx, r.Name, r.SizeBytes)
	} else if v, err = s.Object(r.From); err == nil {
		v, err = disks.CopyToScratch(ctx, v, r.Name)
	}
	if err != nil {
		return File{}, err
	}
	return describeFile(v), nil
}

// FinishFile renames a file of StartFile, durably. It replaces a file of that name only
// with Overwrite.
func (s *Store) FinishFile(ctx context.Context, r FileFinish) (File, error) {
	v, err := s.file(r.Scratch)
	if err != nil {
		return File{}, err
	}
	disks, err := s.DiskManager(ctx)
	if err != nil {
		return File{}, err
	}
	if err := disks.Finish(ctx, vhd.Naming{Scratch: r.Scratch, Name: r.Name, Overwrite: r.Overwrite}); err != nil {
		return File{}, err
	}
	s.log.WithField("file", r.Name).Info("file created")
	return describeFile(v), s.endReplaced(ctx)
}

// endReplaced ends, durably, the tokens of files that were replaced.
func (s *Store) endReplaced(ctx context.Context) error {
	if err := s.endOrphans(ctx); err != nil {
		return err
	}
	return s.store.Flush(ctx)
}

// ResizeFile sets the size of a file, durably. Data beyond it is lost.
func (s *Store) ResizeFile(ctx context.Context, name string, size int64) (File, error) {
	end, err := s.BeginWrite(FilePrefix + name)
	if err != nil {
		return File{}, err
	}
	defer end()
	v, err := s.file(name)
	if err != nil {
		return File{}, err
	}
	if err := v.Truncate(ctx, size); err != nil {
		return File{}, err
	}
	return describeFile(v), s.store.Flush(ctx)
}

// RenameFile renames a file in one step, durably; it replaces a file of that name.
func (s *Store) RenameFile(ctx context.Context, name, to string) (File, error) {
	if err := CheckFileName(to); err != nil {
		return File{}, err
	}
	disks, err := s.DiskManager(ctx) // before BeginWrite, which registers with it
	if err != nil {
		return File{}, err
	}
	for _, file := range []string{name, to} {
		end, err := s.BeginWrite(FilePrefix + file)
		if err != nil {
			return File{}, err
		}
		defer end()
	}
	v, err := s.file(name)
	if err != nil {
		return File{}, err
	}
	if err := s.checkDisposable(name); err != nil {
		return File{}, err
	}
	if err := disks.CheckNoChildren(ctx, to); err != nil {
		return File{}, err
	}
	if err := s.store.RenameFile(ctx, name, to); err != nil {
		return File{}, err
	}
	s.log.WithField("file", name).WithField("to", to).Info("file renamed")
	return describeFile(v), s.endReplaced(ctx)
}

// DeleteFile deletes a file, durably. It refuses the parent of differencing disks.
func (s *Store) DeleteFile(ctx context.Context, name string) error {
	disks, err := s.DiskManager(ctx)
	if err != nil {
		return err
	}
	return s.deleteFile(ctx, name, func() error { return disks.CheckNoChildren(ctx, name) })
}

// DeleteParent deletes a file, durably, whether or not differencing disks are over it.
func (s *Store) DeleteParent(ctx context.Context, name string) error {
	return s.deleteFile(ctx, name, func() error { return nil })
}

// deleteFile deletes a file that check accepts while operations on it are excluded.
func (s *Store) deleteFile(ctx context.Context, name string, check func() error) error {
	end, err := s.BeginWrite(FilePrefix + name)
	if err != nil {
		return err
	}
	defer end()
	if _, err := s.file(name); err != nil {
		return err
	}
	if err := s.checkDisposable(name); err != nil {
		return err
	}
	if err := check(); err != nil {
		return err
	}
	if err := s.store.DeleteFile(ctx, name); err != nil {
		return err
	}
	if err := errors.Join(s.forgetOwnUnit(ctx, FileUnitID(s.store, name)), s.endOrphans(ctx)); err != nil {
		return err
	}
	s.log.WithField("file", name).Info("file deleted")
	return s.store.Flush(ctx)
}
