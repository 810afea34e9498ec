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

// openFile is the disk in a file of the store, which all its users share.
type openFile struct {
	device view.Device
	names  []string // the file and the parents of the disk
	user   string
	// readOnly: it was opened so, which a later user cannot change.
	readOnly bool
}

// errOpenReadOnly: a file is to be written to and is open for reading alone.
var errOpenReadOnly = errors.New("it is open read-only; take its LUNs out of the configuration with one reload, and add them with the next")

// fileDevice opens the disk in a file of the store, which all its users share. It
// creates a missing disk that has a size. An error can be an unusableDisk.
func (s *views) fileDevice(ctx context.Context, u fileUse) (d view.Device, fresh bool, err error) {
	if f := s.files[u.name]; f != nil {
		if f.readOnly && !u.readOnly {
			return nil, false, errOpenReadOnly
		}
		return f.device, false, nil
	}
	_, err = s.media.store.File(u.name)
	if fresh = errors.Is(err, backstore.ErrNotFound) && u.size != 0; fresh {
		err = s.media.disks.Make(ctx, u.name, u.size, int64(u.sector))
		if made := s.media.made; made != nil && err == nil {
			made.files = append(made.files, u.name)
		}
	}
	if err != nil {
		return nil, false, err
	}
	if vhd.FormatOf(u.name) == disk.Raw {
		f, err := s.media.store.File(u.name)
		if err != nil {
			return nil, false, err
		}
		s.files[u.name] = &openFile{device: view.Base(s.media.tokens.Engine(), f), names: []string{u.name}, user: u.user}
	} else {
		open := s.media.disks.Serve
		if u.readOnly {
			open = s.media.disks.ServeReadOnly
		}
		served, err := open(ctx, u.name)
		if err != nil {
			return nil, false, &unusableDisk{err}
		}
		s.files[u.name] = &openFile{device: served.Disk, names: served.Files, user: u.user, readOnly: u.readOnly}
		s.closers = append(s.closers, viewCloser{admin.FilePrefix + u.name, served.Close, nil})
	}
	f := s.files[u.name]
	for _, name := range f.names {
		s.media.users.add(name, u.user)
	}
	return f.device, fresh, nil
}
