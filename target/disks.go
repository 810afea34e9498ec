package target

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"odx/backstore"
	"odx/conf"
	"odx/tokens/view"
	"odx/vhd"
	"odx/vhd/disk"
)

// Disks returns the manager of the virtual disks in the store's files.
func (s *Service) Disks(ctx context.Context) (*vhd.Manager, error) {
	if s.disks == nil {
		if err := s.openDisks(ctx); err != nil {
			return nil, err
		}
	}
	return s.disks, nil
}

func (s *Service) openDisks(ctx context.Context) error {
	tokens, err := s.Tokens(ctx)
	if err != nil {
		return err
	}
	s.disks, err = vhd.New(ctx, vhd.Config{Store: s.store, Tokens: tokens, Uses: uses{s}, Log: s.log})
	return err
}

// uses tells the manager of virtual disks what is served.
type uses struct{ *Service }

// CheckFile implements vhd.Uses.
func (u uses) CheckFile(name string) error { return u.checkServed(FilePrefix + name) }

// CheckVolume implements vhd.Uses.
func (u uses) CheckVolume(name string) error {
	if err := checkVolumeName(name); err != nil {
		return err
	}
	return u.CheckWritable(name)
}

// fileDevice opens the disk that is in a file of the store, the same one for all who
// use it, and makes it with a size in bytes and sectors of the given length when it is
// missing.
func (s *views) fileDevice(ctx context.Context, name string, size int64, sector int, user string) (d view.Device, fresh bool, err error) {
	if d := s.files[name]; d != nil {
		return d, false, nil
	}
	_, err = s.store.File(name)
	if fresh = errors.Is(err, backstore.ErrNotFound) && size != 0; fresh {
		err = s.disks.Make(ctx, name, size, int64(sector))
	}
	if err != nil {
		return nil, false, err
	}
	if vhd.FormatOf(name) == disk.Raw {
		f, err := s.store.File(name)
		if err != nil {
			return nil, false, err
		}
		d = view.Base(s.tokens, f)
		s.served[FilePrefix+name] = user
	} else {
		served, err := s.disks.Serve(ctx, name)
		if err != nil {
			return nil, false, err
		}
		d = served.Disk
		for _, f := range served.Files {
			s.served[FilePrefix+f] = user
		}
		s.closers = append(s.closers, viewCloser{FilePrefix + name, served.Close})
	}
	s.files[name] = d
	return d, fresh, nil
}

// fileSize returns the capacity of the disk in a file, and the length of its sectors.
func (s *Service) fileSize(ctx context.Context, name string) (size, sector int64, err error) {
	g, err := s.disks.Geometry(ctx, name)
	return g.Size, g.SectorLength, err
}

// fileUnitID is the identity of the logical unit on a file: the name's, since a file
// that is made anew, compact for instance, is the same disk.
func (s *Service) fileUnitID(name string) [16]byte {
	h := sha256.New()
	id := s.store.ID()
	h.Write(id[:])
	io.WriteString(h, "disk "+name)
	return [16]byte(h.Sum(nil))
}

// checkServed returns ErrInUse for a space, named as Space does, that is served.
func (s *Service) checkServed(name string) error {
	if user := s.served[name]; user != "" {
		return fmt.Errorf("%s: %w by %s", name, ErrInUse, user)
	}
	return s.checkNoView(name, func(*conf.View) bool { return true })
}
