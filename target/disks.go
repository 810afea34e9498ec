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

// ChangeDisk runs an operation on a virtual disk, and ends the tokens of files that
// are gone with it.
func (s *Service) ChangeDisk(ctx context.Context, r vhd.Request, progress func(vhd.Progress)) (vhd.Result, error) {
	m, err := s.Disks(ctx)
	if err != nil {
		return vhd.Result{}, err
	}
	result, err := m.Do(ctx, r, progress)
	if err != nil {
		return result, err
	}
	return result, s.endReplaced(ctx)
}

func (s *Service) openDisks(ctx context.Context) error {
	tokens, err := s.Tokens(ctx)
	if err != nil {
		return err
	}
	s.disks, err = vhd.New(ctx, vhd.Config{Store: s.store, Tokens: tokens, Uses: uses{s}, Log: s.log, TableMemory: s.memory.Tables})
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

// unusableDisk is a virtual disk that cannot be served, as it is: it, or one of its
// parents, is damaged or missing.
type unusableDisk struct{ err error }

func (e *unusableDisk) Error() string { return e.err.Error() }
func (e *unusableDisk) Unwrap() error { return e.err }

// leaveOut notes that a medium is not served: it is missing, damaged, or not what the
// configuration says. All others are served.
func (s *Service) leaveOut(medium string, err error) {
	s.leftOut[medium] = err
	s.log.WithField("medium", medium).WithError(err).Error("a medium cannot be served, its LUNs are left out; mend it or the configuration, and restart")
}

// viewMedium is conf.LUN.Medium of a LUN on a view.
func viewMedium(name string) string { return (&conf.LUN{View: name}).Medium() }

// fileUse is a disk in a file of the store as a LUN or a view wants it.
type fileUse struct {
	name string
	// size, bytes, and sector, its length in bytes, are those that a disk that is
	// missing is made with.
	size     int64
	sector   int
	readOnly bool
	user     string
}

// fileDevice opens the disk that is in a file of the store, the same one for all who
// use it, and makes it when it is missing and has a size. An error can be an
// unusableDisk.
func (s *views) fileDevice(ctx context.Context, u fileUse) (d view.Device, fresh bool, err error) {
	if d := s.files[u.name]; d != nil {
		return d, false, nil
	}
	_, err = s.store.File(u.name)
	if fresh = errors.Is(err, backstore.ErrNotFound) && u.size != 0; fresh {
		err = s.disks.Make(ctx, u.name, u.size, int64(u.sector))
	}
	if err != nil {
		return nil, false, err
	}
	if vhd.FormatOf(u.name) == disk.Raw {
		f, err := s.store.File(u.name)
		if err != nil {
			return nil, false, err
		}
		d = view.Base(s.tokens, f)
		s.served[FilePrefix+u.name] = u.user
	} else {
		open := s.disks.Serve
		if u.readOnly {
			open = s.disks.ServeReadOnly
		}
		served, err := open(ctx, u.name)
		if err != nil {
			return nil, false, &unusableDisk{err}
		}
		d = served.Disk
		for _, f := range served.Files {
			s.served[FilePrefix+f] = u.user
		}
		s.closers = append(s.closers, viewCloser{FilePrefix + u.name, served.Close})
	}
	s.files[u.name] = d
	return d, fresh, nil
}

// fileSize returns the capacity of the disk in a file, and the length of its sectors. An
// error can be an unusableDisk.
func (s *Service) fileSize(ctx context.Context, name string) (size, sector int64, err error) {
	if _, err := s.store.File(name); err != nil {
		return 0, 0, err
	}
	g, err := s.disks.Geometry(ctx, name)
	if err != nil {
		return 0, 0, &unusableDisk{err}
	}
	return g.Size, g.SectorLength, nil
}

// fileUnitID is the identity of the logical unit on a file: the name's, since a file
// that is made anew, compact for instance, is the same disk.
func (s *Service) fileUnitID(name string) [16]byte {
	h := sha256.New()
	id := s.store.HeaderID()
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
