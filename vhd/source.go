package vhd

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
	"odx/vhd/disk"
)

// pointInTime is a point-in-time view of a volume or a file of the store.
type pointInTime struct {
	snapshot snapshot
	size     int64
}

// snapshot is an offload.Snapshot of the store, which knows its holes.
type snapshot interface {
	offload.Snapshot
	Extents(ctx context.Context, off, length int64, fn func(part blockdev.Range, mapped bool) bool) error
}

func (m *pointInTime) Size() int64 { return m.size }

func (m *pointInTime) ReadAt(ctx context.Context, p []byte, off int64) error {
	return m.snapshot.ReadAt(ctx, p, off)
}

func (m *pointInTime) release() { m.snapshot.Release() }

func (m *Manager) openPointInTime(ctx context.Context, v *backstore.Volume) (*pointInTime, error) {
	s, err := m.engine.Snapshot(ctx, v, []blockdev.Range{{Length: v.Size()}}, 1)
	if err != nil {
		return nil, err
	}
	held, ok := s.(snapshot)
	if !ok {
		s.Release()
		return nil, fmt.Errorf("%w: %v is not in the store", blockdev.ErrInvalid, v)
	}
	return &pointInTime{held, s.Length()}, nil
}

// source is a point-in-time view of a disk, with its parents unless it was opened alone.
type source struct {
	name    string // of the file
	format  disk.Format
	disk    *disk.Disk // nil if the format is raw
	size    int64      // bytes of the disk
	file    *pointInTime
	parents []*source // the nearest first
}

// Size returns the capacity in bytes.
func (s *source) Size() int64 { return s.size }

// Runs returns the places of the bytes of a range: see disk.Disk.Runs.
func (s *source) Runs(ctx context.Context, off, length int64, fn func(disk.Run) bool) error {
	if s.disk != nil {
		return s.disk.Runs(ctx, off, length, fn)
	}
	fn(disk.Run{Offset: off, Length: length, In: s.file, At: off})
	return nil
}

func (s *source) release() {
	if s.disk != nil {
		release(s.disk.Table())
	}
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
	file, err := m.openPointInTime(ctx, v)
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

// openPlaced opens a file, which may be a scratch file, under another name.
func (m *Manager) openPlaced(ctx context.Context, file, name string) (_ *source, err error) {
	f, err := m.store.File(file)
	if err != nil {
		return nil, err
	}
	s := &source{name: name, format: FormatOf(file)}
	if s.file, err = m.openPointInTime(ctx, f); err != nil {
		return nil, err
	}
	s.size = s.file.size
	if s.format == disk.Raw {
		return s, nil
	}
	t, err := m.formats.openReadOnly(ctx, s.format, s.file)
	if err == nil && payloadOf(t, s.file) != blockdev.Reader(s.file) {
		release(t)
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

// openReplayed opens a file whose log has payload that must be mapped. It replays the log
// in a copy, which shares all data and is deleted at the end: s holds a snapshot of it.
func (m *Manager) openReplayed(ctx context.Context, s *source, f *backstore.Volume) (t disk.Table, err error) {
	s.file = nil
	copied, err := m.store.CloneFile(ctx, f, tempName())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.store.DeleteFile(context.WithoutCancel(ctx), copied.Name())) }()
	replayed, err := m.formats.open(ctx, s.format, copied)
	if err != nil {
		return nil, err
	}
	defer release(replayed)
	if err := replayed.Close(ctx); err != nil {
		return nil, err
	}
	if s.file, err = m.openPointInTime(ctx, copied); err != nil {
		return nil, err
	}
	return m.formats.openReadOnly(ctx, s.format, s.file)
}

// maxChain bounds the parents of a differencing disk, also of disks that are each other's
// parents.
const maxChain = 256

// openChain opens a file with its parents.
func (m *Manager) openChain(ctx context.Context, name string) (*source, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return m.openChainPlaced(ctx, name, name)
}

// openChainPlaced is openPlaced with the parents, whose paths are relative to name.
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
		parent, err := m.parentName(ctx, last.name, last.format, child.Parent)
		if err != nil {
			return nil, err
		}
		p, err := m.openAlone(ctx, parent)
		if err != nil {
			return nil, fmt.Errorf("parent of %s: %w", last.name, err)
		}
		s.parents = append(s.parents, p)
		if p.disk == nil {
			p.disk = disk.New(disk.Config{Table: &rawTable{size: p.size}, Reader: p.file})
		}
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
