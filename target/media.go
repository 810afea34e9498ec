package target

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/target/gotgt"
	"odx/tokens"
	"odx/vhd"
)

// media are what the LUNs and views of a configuration are stored on: volumes and files
// of the store, and plain files. One that cannot be served is left out.
type media struct {
	cfg    *conf.Config
	log    *logrus.Entry
	store  *backstore.Store
	tokens *tokens.Manager
	disks  *vhd.Manager
	users  *fileUsers
	// foreign has the LUNs of other targets.
	foreign *foreignLUNs

	leftOut map[string]error // why a medium is not served, by conf.LUN.Medium
	// backings are plain files and LUNs of other targets that are open, by the medium that they
	// were opened for.
	backings map[string][]io.Closer
	// made is what was created for a configuration that is not in force yet; nil at the
	// start, which creates media under their names.
	made *creation
}

// closeBackings closes what a medium has outside of the store.
func (m *media) closeBackings(medium string) error {
	var errs []error
	for _, c := range m.backings[medium] {
		errs = append(errs, c.Close())
	}
	delete(m.backings, medium)
	return errors.Join(errs...)
}

// fileUsers has the users of the open files of the store: LUNs and views.
type fileUsers struct {
	mu sync.Mutex        // guards by
	by map[string]string // user by name of the file
}

// add records that user has a file open.
func (u *fileUsers) add(file, user string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.by[file] = user
}

// remove records that files are not open any more.
func (u *fileUsers) remove(files []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range files {
		delete(u.by, f)
	}
}

// of returns the user of a file, "" if it is not open.
func (u *fileUsers) of(file string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.by[file]
}

// checkMedia compares every LUN with its volume or file, and changes nothing. A LUN
// that cannot be served is left out; it is an error if no LUN can be served.
func (m *media) checkMedia(ctx context.Context) error {
	m.checkViews()
	seen := map[string]bool{}
	for _, t := range m.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			if seen[l.Medium()] || l.View != "" {
				continue
			}
			seen[l.Medium()] = true
			if err := m.checkMedium(ctx, l); err != nil {
				m.leaveOut(l.Medium(), err)
			}
		}
	}
	return m.checkSome()
}

// checkMedium returns why a LUN cannot be served.
func (m *media) checkMedium(ctx context.Context, l *conf.LUN) error {
	if l.ISCSI != "" {
		return nil // it need not be reachable now
	}
	size, err := m.existingSize(ctx, l)
	if bad := (*unusableDisk)(nil); errors.As(err, &bad) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, backstore.ErrNotFound) {
		if l.Size == 0 {
			return m.cfg.Problem(l.Key+".size", "LUN %d: %s does not exist; give its size to create it", l.Number, l.Medium())
		}
		return nil
	}
	if p := m.checkSize(l, size, err); p != nil {
		return *p
	}
	return nil
}

// checkViews compares the views with what is below them, and changes nothing. A view
// that cannot be opened is left out.
func (m *media) checkViews() {
	for i := range m.cfg.Views {
		v := &m.cfg.Views[i]
		for _, d := range v.Over {
			if d.View != "" || v.Size != 0 {
				continue
			}
			if err := m.checkDevice(v, d); err != nil {
				m.leaveOut(viewMedium(v.Name), err)
			}
		}
	}
}

// checkDevice returns why a device below a view that creates none cannot be used.
func (m *media) checkDevice(v *conf.View, d conf.Device) error {
	err := m.deviceExists(d)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, backstore.ErrNotFound):
		return m.cfg.Problem(v.Key, "view %s: %s does not exist; give the view a size to create it", v.Name, d)
	case err != nil:
		return m.cfg.Problem(v.Key, "view %s: %s cannot be used: %v", v.Name, d, err)
	}
	return nil
}

func (m *media) deviceExists(d conf.Device) error {
	if d.Backing != "" {
		return checkBacking(d.Backing)
	}
	_, err := m.openObject(d)
	return err
}

// checkSome returns the problems of all LUNs as an error if no LUN can be served.
func (m *media) checkSome() error {
	var problems conf.Problems
	reported := map[string]bool{}
	for _, t := range m.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			err := m.leftOut[l.Medium()]
			if err == nil || notServedByRole(err) {
				return nil
			}
			var problem conf.Problem
			if !errors.As(err, &problem) {
				problem = m.cfg.Problem(l.Key, "LUN %d: %v", l.Number, err)
			}
			if text := problem.Error(); !reported[text] {
				reported[text] = true
				problems = append(problems, problem)
			}
		}
	}
	if len(problems) == 0 {
		return nil // no LUN is configured
	}
	return problems
}

// leaveOut records that a medium is not served: it is missing, damaged, or differs from
// the configuration.
func (m *media) leaveOut(medium string, err error) {
	m.leftOut[medium] = err
	m.log.WithField("medium", medium).WithError(err).Error("medium not served, its LUNs are left out; repair it or change the configuration, and reload")
}

// existingSize returns the size in bytes of the medium of l.
func (m *media) existingSize(ctx context.Context, l *conf.LUN) (int64, error) {
	if l.File != "" {
		size, sector, err := m.fileSize(ctx, l.File)
		if err == nil && int64(l.BlockSize)%sector != 0 {
			err = fmt.Errorf("its sectors have %d bytes; write block_size: %d", sector, sector)
		}
		return size, err
	}
	if l.Volume != "" {
		v, err := m.volume(l.Volume)
		if err != nil {
			return 0, err
		}
		return v.Size(), nil
	}
	info, err := os.Stat(l.Backing)
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("it is not a regular file")
	}
	return info.Size(), nil
}

// fileSize returns the capacity of the disk in a file and the length of its sectors. An
// error can be an unusableDisk.
func (m *media) fileSize(ctx context.Context, name string) (size, sector int64, err error) {
	if _, err := m.store.File(name); err != nil {
		return 0, 0, err
	}
	g, err := m.disks.Geometry(ctx, name)
	if err != nil {
		return 0, 0, &unusableDisk{err}
	}
	return g.Size, g.SectorLength, nil
}

// checkSize returns the problem of l, whose medium has the given size or could not be
// examined because of err; nil if there is none.
func (m *media) checkSize(l *conf.LUN, size int64, err error) *conf.Problem {
	var p conf.Problem
	switch {
	case err != nil:
		p = m.cfg.Problem(l.Key, "LUN %d: %s cannot be used: %v", l.Number, l.Medium(), err)
	case l.Size > size:
		p = m.cfg.Problem(l.Key+".size", "LUN %d: %s has %s, not %s; odx does not resize it: %swrite its size, leave size out, or name another volume",
			l.Number, l.Medium(), conf.FormatSize(size), conf.FormatSize(l.Size), growHint(l, size))
	case size == 0 || size%int64(l.BlockSize) != 0:
		p = m.cfg.Problem(l.Key+".block_size", "LUN %d: the size of %s, %d bytes, is not a positive multiple of the block size %d", l.Number, l.Medium(), size, l.BlockSize)
	default:
		if l.Size != 0 && l.Size != size {
			m.log.Warn(m.cfg.Problem(l.Key+".size", "LUN %d: %s has %s, which is more than %s, and is served as it is; write its size, or leave size out",
				l.Number, l.Medium(), conf.FormatSize(size), conf.FormatSize(l.Size)).Error())
		}
		return nil
	}
	return &p
}

// growHint explains how to grow a volume to its configured size, if it is smaller.
func growHint(l *conf.LUN, size int64) string {
	if l.Volume == "" || l.Size < size {
		return ""
	}
	return fmt.Sprintf("grow it with `odx volume resize %s %s`, ", l.Volume, conf.FormatSize(l.Size))
}

// openObject returns the volume or file of the store that d names.
func (m *media) openObject(d conf.Device) (*backstore.Volume, error) {
	if d.File != "" {
		return m.store.File(d.File)
	}
	return m.volume(d.Volume)
}

// volume returns the volume that has a name, or will have it.
func (m *media) volume(name string) (*backstore.Volume, error) {
	if m.made != nil && m.made.volumes[name] != nil {
		return m.made.volumes[name], nil
	}
	return m.store.Volume(name)
}

// openVolume returns the volume of that name, and creates a missing one.
func (m *media) openVolume(ctx context.Context, l *conf.LUN) (*backstore.Volume, error) {
	v, err := m.volume(l.Volume)
	if !errors.Is(err, backstore.ErrNotFound) {
		return v, err
	}
	return m.makeVolume(ctx, l.Volume, l.Size)
}

func (m *media) makeVolume(ctx context.Context, name string, size int64) (*backstore.Volume, error) {
	if m.made != nil {
		return m.made.volume(ctx, name, size)
	}
	v, err := m.store.CreateVolume(ctx, name, size)
	if err != nil {
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	m.log.WithField("volume", name).WithField("size", conf.FormatSize(size)).Info("volume created")
	return v, nil
}

// checkBacking returns why a path is not that of a medium. It does not open the file: that
// may wait, or have an effect, for a file of another kind.
func checkBacking(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if kind := info.Mode().Type(); kind != 0 && kind != fs.ModeDevice {
		return errors.New("it is neither a regular file nor a block device")
	}
	return nil
}

// openBacking opens a plain file through gotgt for a medium, and creates a missing one that
// has a size.
func (m *media) openBacking(medium, path string, size int64) (blockdev.Volume, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		if m.made != nil {
			m.made.plain = append(m.made.plain, path)
		}
		err = errors.Join(f.Truncate(size), f.Close())
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	if err := checkBacking(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	v, err := gotgt.Open("file:" + path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	m.backings[medium] = append(m.backings[medium], v)
	return v, nil
}

// backingID derives the identity of a plain file from that of the store and its
// absolute path, so that it stays the same.
func (m *media) backingID(path string) [16]byte {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	h := sha256.New()
	id := m.store.HeaderID()
	h.Write(id[:])
	io.WriteString(h, path)
	return [16]byte(h.Sum(nil))
}
