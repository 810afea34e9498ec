package target

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/tokens"
	"odx/vhd"
)

// FilePrefix begins the name of a file where a volume could stand, too.
const FilePrefix = tokens.FilePrefix

// File describes a file of the store.
type File struct {
	Name string `json:"name"`
	// ID is the file's permanent number in hexadecimal.
	ID        string `json:"id"`
	SizeBytes int64  `json:"size_bytes"`
	// Created is missing where the store does not know it.
	Created time.Time `json:"created,omitzero"`
}

// checkFileName checks the name of a file: a path that begins with no slash and
// no dot, and has no empty part and no . or .. in it.
func checkFileName(name string) error {
	if name == "" || name[0] == '/' || name[0] == '.' || path.Clean(name) != name {
		return fmt.Errorf("%w: file name %q; write a path like images/base.vhdx", blockdev.ErrInvalid, name)
	}
	return nil
}

// Space returns the volume of that name, or the file whose name follows
// FilePrefix.
func (s *Service) Space(name string) (*backstore.Volume, error) {
	if file, ok := strings.CutPrefix(name, FilePrefix); ok {
		return s.file(file)
	}
	return s.Volume(name)
}

// file returns a file of the store by name, hidden ones excepted, unless their client
// asks, who alone knows the name.
func (s *Service) file(name string) (*backstore.Volume, error) {
	if vhd.IsScratch(name) && s.disks != nil {
		s.disks.Touch(name)
	} else if strings.HasPrefix(name, hiddenPrefix) {
		return nil, fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return s.store.File(name)
}

// Files describes the files of the store, by name.
func (s *Service) Files() []File {
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

// CreateFile makes a file of size bytes that reads as zeros. It is durable on
// return.
func (s *Service) CreateFile(ctx context.Context, name string, size int64) (File, error) {
	if err := checkFileName(name); err != nil {
		return File{}, err
	}
	v, err := s.store.CreateFile(ctx, name)
	if err != nil {
		return File{}, err
	}
	if err := v.Truncate(ctx, size); err != nil {
		return File{}, errors.Join(err, s.store.DeleteFile(ctx, name))
	}
	s.log.WithField("file", name).Info("file made")
	return describeFile(v), s.store.Flush(ctx)
}

// CopyFile makes a file that equals a space (see Space) as it is now, and shares
// its data. It is durable on return.
func (s *Service) CopyFile(ctx context.Context, from, name string) (File, error) {
	if err := checkFileName(name); err != nil {
		return File{}, err
	}
	src, err := s.Space(from)
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

// StartFile makes a hidden file under a random name, in which a client puts together the
// file like; it reads as zeros, size bytes of them, or equals the space from, if that is
// not empty. FinishFile gives it a name. It is gone after an hour without use, and when
// the store is opened again.
func (s *Service) StartFile(ctx context.Context, like, from string, size int64) (File, error) {
	if err := checkFileName(like); err != nil {
		return File{}, err
	}
	disks, err := s.Disks(ctx)
	if err != nil {
		return File{}, err
	}
	var v *backstore.Volume
	if from == "" {
		v, err = disks.NewScratch(ctx, like, size)
	} else if v, err = s.Space(from); err == nil {
		v, err = disks.CopyToScratch(ctx, v, like)
	}
	if err != nil {
		return File{}, err
	}
	return describeFile(v), nil
}

// FinishFile gives a file of StartFile the name that it was made for, durably, in place
// of a file that has it only if that may be overwritten.
func (s *Service) FinishFile(ctx context.Context, n vhd.Naming) (File, error) {
	v, err := s.file(n.Scratch)
	if err != nil {
		return File{}, err
	}
	disks, err := s.Disks(ctx)
	if err != nil {
		return File{}, err
	}
	if err := disks.Finish(ctx, n); err != nil {
		return File{}, err
	}
	s.log.WithField("file", n.Name).Info("file made")
	return describeFile(v), s.endReplaced(ctx)
}

// endReplaced ends, durably, the tokens of files that another one has taken the
// place of.
func (s *Service) endReplaced(ctx context.Context) error {
	if err := s.endOrphans(ctx); err != nil {
		return err
	}
	return s.store.Flush(ctx)
}

// ResizeFile sets the size of a file, durably. What is beyond it is gone.
func (s *Service) ResizeFile(ctx context.Context, name string, size int64) (File, error) {
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

// RenameFile gives a file another name, in place of the file that has it, in one
// step, durably.
func (s *Service) RenameFile(ctx context.Context, name, to string) (File, error) {
	if err := checkFileName(to); err != nil {
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
	if err := s.store.RenameFile(ctx, name, to); err != nil {
		return File{}, err
	}
	s.log.WithField("file", name).WithField("to", to).Info("file renamed")
	return describeFile(v), s.endReplaced(ctx)
}

// checkDisposable returns ErrInUse for a file that a LUN or a view needs, served or
// not.
func (s *Service) checkDisposable(name string) error {
	if err := s.checkNoLUN(fileMedium(name)); err != nil {
		return err
	}
	return s.checkServed(FilePrefix + name)
}

// DeleteFile deletes a file, durably.
func (s *Service) DeleteFile(ctx context.Context, name string) error {
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
	if err := s.store.DeleteFile(ctx, name); err != nil {
		return err
	}
	if err := errors.Join(forgetUnit(ctx, s.store, s.fileUnitID(name)), s.endOrphans(ctx)); err != nil {
		return err
	}
	s.log.WithField("file", name).Info("file deleted")
	return s.store.Flush(ctx)
}
