package vhd

import (
	"context"
	"fmt"

	"odx/blockdev"
	"odx/vhd/disk"
)

// Served is a virtual disk that is open for initiators.
type Served struct {
	*disk.Disk
	// Files are the disk's own file and those of its parents.
	Files []string
	// parents are the tables of the disks below.
	parents []disk.Table
}

// Close closes the file in order, durably, and frees the memory of the tables of the disk
// and its parents.
func (s *Served) Close(ctx context.Context) error {
	defer s.releaseParents()
	return s.Disk.Close(ctx)
}

func (s *Served) releaseParents() {
	for _, t := range s.parents {
		release(t)
	}
}

// Serve opens a VHD or VHDX file of the store, and its parents for reading. Until the disk
// is closed, Uses must report that its files are in use.
func (m *Manager) Serve(ctx context.Context, name string) (*Served, error) {
	f, err := m.store.File(name)
	if err != nil {
		return nil, err
	}
	t, err := m.formats.open(ctx, FormatOf(name), f)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", name, err)
	}
	return m.serve(ctx, name, t, f)
}

// ServeReadOnly is Serve for a disk that is not written to. The file does not change
// either: its log is applied in memory, and nothing is repaired.
func (m *Manager) ServeReadOnly(ctx context.Context, name string) (*Served, error) {
	f, err := m.store.File(name)
	if err != nil {
		return nil, err
	}
	t, err := m.formats.openReadOnly(ctx, FormatOf(name), f)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", name, err)
	}
	return m.serve(ctx, name, t, payloadOf(t, f))
}

// warnOfDisagreement logs that two copies of the structures of a disk, both valid,
// differ: another program may use the other one, and see another disk.
func (m *Manager) warnOfDisagreement(name string, t disk.Table) {
	if d, ok := t.(interface{ Disagreement() string }); ok && d.Disagreement() != "" {
		m.log.WithField("file", name).Warn(d.Disagreement() + "; see odx vhd check")
	}
}

func (m *Manager) serve(ctx context.Context, name string, t disk.Table, payload blockdev.Reader) (*Served, error) {
	m.warnOfDisagreement(name, t)
	s := &Served{Files: []string{name}}
	parent, err := m.serveParents(ctx, s, name, t.Info())
	if err != nil {
		release(t)
		s.releaseParents()
		return nil, err
	}
	s.Disk = disk.New(disk.Config{Table: t, Reader: payload, Engine: m.engine, Parent: parent})
	return s, nil
}

// serveParents opens the parents of a disk, each over its own.
func (m *Manager) serveParents(ctx context.Context, s *Served, child string, info disk.Info) (*disk.Disk, error) {
	if info.Kind != disk.Differencing {
		return nil, nil
	}
	if len(s.Files) > maxChain {
		return nil, fmt.Errorf("file %s: %w: it has more than %d parents, or is its own", s.Files[0], disk.ErrFormat, maxChain)
	}
	name, err := m.parentName(ctx, child, info.Format, info.Parent)
	if err != nil {
		return nil, err
	}
	f, err := m.store.File(name)
	if err != nil {
		return nil, err
	}
	t, err := m.formats.openReadOnly(ctx, FormatOf(name), f)
	if err != nil {
		return nil, fmt.Errorf("parent of %s: file %s: %w", child, name, err)
	}
	s.parents = append(s.parents, t)
	m.warnOfDisagreement(name, t)
	if err := checkLink(child, &info, name, t.Info()); err != nil {
		return nil, err
	}
	s.Files = append(s.Files, name)
	below, err := m.serveParents(ctx, s, name, t.Info())
	if err != nil {
		return nil, err
	}
	return disk.New(disk.Config{Table: t, Reader: payloadOf(t, f), Parent: below}), nil
}
