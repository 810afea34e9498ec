package vhd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"odx/backstore"
	"odx/tokens"
	"odx/vhd/disk"
)

// moment is a volume or a file of the store as it was when it was opened.
type moment struct {
	snapshot snapshot
	size     int64
}

// snapshot is a tokens.Snapshot of the store, which can tell where it has holes.
type snapshot interface {
	tokens.Snapshot
	Extents(ctx context.Context, off, length int64, fn func(part backstore.Range, mapped bool) bool) error
}

func (m *moment) Size() int64 { return m.size }

func (m *moment) ReadAt(ctx context.Context, p []byte, off int64) error {
	return m.snapshot.ReadAt(ctx, p, off)
}

func (m *moment) release() { m.snapshot.Release() }

func (m *Manager) openMoment(ctx context.Context, v *backstore.Volume) (*moment, error) {
	s, err := m.tokens.Moment(ctx, v)
	if err != nil {
		return nil, err
	}
	held, ok := s.(snapshot)
	if !ok {
		s.Release()
		return nil, fmt.Errorf("%w: %v is not in the store", backstore.ErrInvalid, v)
	}
	return &moment{held, s.Length()}, nil
}

// source is a disk as it was when it was opened, with its parents if they were asked
// for.
type source struct {
	name    string // of the file
	format  disk.Format
	disk    *disk.Disk // nil if the format is raw
	size    int64      // bytes of the disk
	file    *moment
	parents []*source // the nearest first
}

// Size returns the capacity in bytes.
func (s *source) Size() int64 { return s.size }

// Runs says where the bytes of a range are: see disk.Disk.Runs.
func (s *source) Runs(ctx context.Context, off, length int64, fn func(disk.Run) bool) error {
	if s.disk != nil {
		return s.disk.Runs(ctx, off, length, fn)
	}
	fn(disk.Run{Offset: off, Length: length, In: s.file, At: off})
	return nil
}

func (s *source) release() {
	for _, p := range s.parents {
		p.release()
	}
	if s.file != nil {
		s.file.release()
	}
}

// names returns the file's name and those of its parents.
func (s *source) names() []string {
	names := []string{s.name}
	for _, p := range s.parents {
		names = append(names, p.name)
	}
	return names
}

// openVolume opens a volume of the store as a raw disk.
func (m *Manager) openVolume(ctx context.Context, name string) (*source, error) {
	v, err := m.store.Volume(name)
	if err != nil {
		return nil, err
	}
	file, err := m.openMoment(ctx, v)
	if err != nil {
		return nil, err
	}
	return &source{name: name, format: disk.Raw, file: file, size: file.size}, nil
}

// openAlone opens a file without its parents.
func (m *Manager) openAlone(ctx context.Context, name string) (*source, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return m.openPlaced(ctx, name, name)
}

// openPlaced opens a file, which may be a scratch file, as one that has another name.
func (m *Manager) openPlaced(ctx context.Context, file, name string) (_ *source, err error) {
	f, err := m.store.File(file)
	if err != nil {
		return nil, err
	}
	s := &source{name: name, format: FormatOf(file)}
	if s.file, err = m.openMoment(ctx, f); err != nil {
		return nil, err
	}
	s.size = s.file.size
	if s.format == disk.Raw {
		return s, nil
	}
	t, err := openTableReadOnly(ctx, s.format, s.file)
	if err == nil && payloadOf(t, s.file) != disk.Reader(s.file) {
		s.file.release()
		t, err = m.openReplayed(ctx, s, f)
	}
	if err != nil {
		s.release()
		return nil, fmt.Errorf("file %s: %w", name, err)
	}
	s.disk = disk.New(disk.Config{Table: t, Reader: s.file})
	s.size = s.disk.Size()
	return s, nil
}

// openReplayed opens a file whose log has payload that is to be mapped: in a copy, which
// takes no space and has its log replayed, and is gone but for the moment that s holds.
func (m *Manager) openReplayed(ctx context.Context, s *source, f *backstore.Volume) (t disk.Table, err error) {
	s.file = nil
	copied, err := m.store.CloneFile(ctx, f, tempName())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.store.DeleteFile(context.WithoutCancel(ctx), copied.Name())) }()
	replayed, err := openTable(ctx, s.format, copied)
	if err != nil {
		return nil, err
	}
	if err := replayed.Close(ctx); err != nil {
		return nil, err
	}
	if s.file, err = m.openMoment(ctx, copied); err != nil {
		return nil, err
	}
	return openTableReadOnly(ctx, s.format, s.file)
}

// maxChain is the longest chain of differencing disks: enough for anyone, and an end
// for disks that are each other's parents.
const maxChain = 256

// openChain opens a file with its parents.
func (m *Manager) openChain(ctx context.Context, name string) (*source, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return m.openChainPlaced(ctx, name, name)
}

// openChainPlaced is openPlaced with the parents, whose places count from name.
func (m *Manager) openChainPlaced(ctx context.Context, file, name string) (_ *source, err error) {
	s, err := m.openPlaced(ctx, file, name)
	if err != nil || s.disk == nil {
		return s, err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	for last := s; last.disk.Info().Kind == disk.Differencing; last = s.parents[len(s.parents)-1] {
		if len(s.parents) == maxChain {
			return nil, fmt.Errorf("file %s: %w: it has more than %d parents, or is its own", name, disk.ErrFormat, maxChain)
		}
		child := last.disk.Info()
		parent, err := m.parentName(last.name, last.format, child.Parent)
		if err != nil {
			return nil, err
		}
		p, err := m.openAlone(ctx, parent)
		if err != nil {
			return nil, fmt.Errorf("parent of %s: %w", last.name, err)
		}
		s.parents = append(s.parents, p)
		if err := checkLink(last.name, &child, parent, p.disk.Info()); err != nil {
			return nil, err
		}
	}
	for i := len(s.parents) - 2; i >= 0; i-- {
		s.parents[i].setParent(s.parents[i+1])
	}
	if len(s.parents) > 0 {
		s.setParent(s.parents[0])
	}
	return s, nil
}

func (s *source) setParent(p *source) {
	s.disk = disk.New(disk.Config{Table: s.disk.Table(), Reader: s.file, Parent: p.disk})
}

// checkLink reports whether a disk is still the one that its child was made over.
func checkLink(child string, c *disk.Info, name string, p disk.Info) error {
	if !c.Parent.Is(p.ID) {
		return fmt.Errorf("%w: %s is not the disk any more that %s was made over (its identifier is %s, not %s); bring that one back, or the child's data cannot be told",
			disk.ErrFormat, name, child, p.ID, c.Parent.ID)
	}
	if c.SectorLength != p.SectorLength {
		return fmt.Errorf("%w: %s has sectors of %d bytes, and its parent %s of %d", disk.ErrFormat, child, c.SectorLength, name, p.SectorLength)
	}
	return nil
}

// parentName returns the file that is the parent of the file child: the first of the
// places that the child names that is a file of the store. Of an absolute path, which
// is that of another machine, the last part counts, in the child's folder.
func (m *Manager) parentName(child string, format disk.Format, p *disk.Parent) (string, error) {
	if p == nil || len(p.Paths) == 0 {
		return "", fmt.Errorf("file %s: %w: it does not say where its parent is", child, disk.ErrFormat)
	}
	for _, place := range p.Paths {
		place = strings.ReplaceAll(place, `\`, "/")
		name := path.Join(path.Dir(child), place)
		if isAbsolute(place) {
			name = path.Join(path.Dir(child), path.Base(place))
		}
		if checkName(name) != nil || FormatOf(name) != format {
			continue
		}
		_, err := m.store.File(name)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, backstore.ErrNotFound) {
			return "", err
		}
	}
	return "", fmt.Errorf("file %s: its parent %s is not in the store; put it there: %w", child, strings.Join(p.Paths, " or "), backstore.ErrNotFound)
}

// isAbsolute reports whether a path of a parent locator, with slashes, begins at a
// root: /, //server or C:.
func isAbsolute(place string) bool {
	return strings.HasPrefix(place, "/") || len(place) > 1 && place[1] == ':'
}

// relative returns the path from the folder of the file from to the file to.
func relative(from, to string) string {
	dir, parts := path.Dir(from), ""
	for dir != "." && !strings.HasPrefix(to, dir+"/") {
		dir, parts = path.Dir(dir), parts+"../"
	}
	if dir != "." {
		to = to[len(dir)+1:]
	}
	if parts == "" {
		parts = "./"
	}
	return parts + to
}

// children returns the files of the store that are differencing disks over a file.
func (m *Manager) children(ctx context.Context, name string) ([]string, error) {
	var all []string
	for _, f := range m.store.Files() {
		child := f.Name()
		if FormatOf(child) != FormatOf(name) || FormatOf(name) == disk.Raw || strings.HasPrefix(child, ".") {
			continue
		}
		t, err := openTableReadOnly(ctx, FormatOf(child), f)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil || t.Info().Kind != disk.Differencing {
			continue // who is no disk is nobody's child
		}
		if parent, err := m.parentName(child, FormatOf(child), t.Info().Parent); err == nil && parent == name {
			all = append(all, child)
		}
	}
	return all, nil
}

// checkNoChildren returns an error for a file that has children beside those in but:
// they would be lost with its contents.
func (m *Manager) checkNoChildren(ctx context.Context, name string, but ...string) error {
	all, err := m.children(ctx, name)
	if err != nil {
		return err
	}
	for _, child := range all {
		if !slices.Contains(but, child) {
			return fmt.Errorf("%w: %s is a differencing disk over %s and would be lost; merge it first, or convert it to a disk of its own", backstore.ErrInvalid, child, name)
		}
	}
	return nil
}
