package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"odx/blockdev"
	"odx/conf"
	"odx/offload/view"
)

// legFile is a plain file of a mirror leg, with the stamp of the mirror after the data.
type legFile struct {
	*os.File
	data int64 // bytes
}

// openLegFile opens an existing file. The data ends where the stamp begins, or with the
// file.
func openLegFile(path string) (*legFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l := &legFile{File: f, data: info.Size()}
	if end := info.Size() - view.StampLength; end >= 0 {
		p := make([]byte, view.StampLength)
		if _, err := f.ReadAt(p, end); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if s, err := view.ParseStamp(p); err == nil && s.DataBytes == end {
			l.data = end
		}
	}
	return l, nil
}

// DataBytes implements view.Stamped.
func (l *legFile) DataBytes() int64 { return l.data }

// ReadStamp implements view.Stamped.
func (l *legFile) ReadStamp(context.Context) ([]byte, error) {
	p := make([]byte, view.StampLength)
	_, err := l.ReadAt(p, l.data)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	return p, err
}

// WriteStamp implements view.Stamped.
func (l *legFile) WriteStamp(_ context.Context, p []byte) error {
	if _, err := l.WriteAt(p, l.data); err != nil {
		return err
	}
	return l.Sync()
}

// prefixVolume is the first size bytes of a volume.
type prefixVolume struct {
	blockdev.Volume
	size int64
}

// Size implements blockdev.Volume.
func (v prefixVolume) Size() int64 { return v.size }

// backingLeg opens a plain file below the view v, and creates a missing one. A file of
// a mirror has a stamp.
func (s *views) backingLeg(v *conf.View, d conf.Device) (view.Leg, error) {
	info, err := os.Stat(d.Backing)
	fresh := errors.Is(err, fs.ErrNotExist)
	b, err := s.media.openBacking(viewMedium(v.Name), d.Backing, v.Size)
	if err != nil {
		return view.Leg{}, err
	}
	leg := view.Leg{ID: d.String(), Fresh: fresh}
	// A block device has no room for a stamp after its data.
	if (fresh || info.Mode().IsRegular()) && s.mirrored(v) {
		f, err := openLegFile(d.Backing)
		if err != nil {
			return view.Leg{}, fmt.Errorf("open %s: %w", d.Backing, err)
		}
		s.media.backings[viewMedium(v.Name)] = append(s.media.backings[viewMedium(v.Name)], f)
		s.legFiles[d.Backing] = f
		b, leg.Files = prefixVolume{b, f.data}, []view.Stamped{f}
	}
	leg.Device = view.Base(s.media.tokens.Engine(), b)
	return leg, nil
}

// mirrored reports whether v is a mirror, or a mirror is over it.
func (s *views) mirrored(v *conf.View) bool {
	if v.Kind == conf.ViewMirror {
		return true
	}
	for i := range s.media.cfg.Views {
		above := &s.media.cfg.Views[i]
		for _, d := range above.Over {
			if d.View == v.Name && s.mirrored(above) {
				return true
			}
		}
	}
	return false
}

// filesUnder returns the stamped files below a view.
func (s *views) filesUnder(name string) (files []view.Stamped) {
	for i := range s.media.cfg.Views {
		v := &s.media.cfg.Views[i]
		if v.Name != name {
			continue
		}
		for _, d := range v.Over {
			if f := s.legFiles[d.Backing]; f != nil {
				files = append(files, f)
			} else if d.View != "" {
				files = append(files, s.filesUnder(d.View)...)
			}
		}
	}
	return files
}
