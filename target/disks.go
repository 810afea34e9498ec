package target

import (
	"context"
	"errors"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
	"odx/offload/view"
	"odx/vhd"
	"odx/vhd/disk"
)

// unusableDisk is a virtual disk that cannot be served because it or one of its parents
// is damaged or missing.
type unusableDisk struct{ err error }

func (e *unusableDisk) Error() string { return e.err.Error() }
func (e *unusableDisk) Unwrap() error { return e.err }

// viewMedium is conf.LUN.Medium of a LUN on a view.
func viewMedium(name string) string { return (&conf.LUN{View: name}).Medium() }

// fileUse describes how a LUN or a view uses a disk in a file of the store.
type fileUse struct {
	name string
	// size and sector, in bytes, are the capacity and the sector length with which a
	// missing disk is created.
	size     int64
	sector   int
	readOnly bool
	user     string
}

// fileDevice opens the disk in a file of the store, which all its users share. It
// creates a missing disk that has a size. An error can be an unusableDisk.
func (s *views) fileDevice(ctx context.Context, u fileUse) (d view.Device, fresh bool, err error) {
	if d := s.files[u.name]; d != nil {
		return d, false, nil
	}
	_, err = s.media.store.File(u.name)
	if fresh = errors.Is(err, backstore.ErrNotFound) && u.size != 0; fresh {
		err = s.media.disks.Make(ctx, u.name, u.size, int64(u.sector))
	}
	if err != nil {
		return nil, false, err
	}
	if vhd.FormatOf(u.name) == disk.Raw {
		f, err := s.media.store.File(u.name)
		if err != nil {
			return nil, false, err
		}
		d = view.Base(s.media.tokens.Engine(), f)
		s.media.users.add(u.name, u.user)
	} else {
		open := s.media.disks.Serve
		if u.readOnly {
			open = s.media.disks.ServeReadOnly
		}
		served, err := open(ctx, u.name)
		if err != nil {
			return nil, false, &unusableDisk{err}
		}
		d = served.Disk
		for _, f := range served.Files {
			s.media.users.add(f, u.user)
		}
		s.closers = append(s.closers, viewCloser{admin.FilePrefix + u.name, served.Close})
	}
	s.files[u.name] = d
	return d, fresh, nil
}
