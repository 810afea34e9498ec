package vhd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"odx/blockdev"
	"odx/vhd/disk"
)

// Description describes a virtual disk. Lengths are bytes.
type Description struct {
	Name   string
	Format disk.Format
	// Kind is fixed, dynamic or differencing; a raw file is fixed.
	Kind                string
	SizeBytes           int64
	FileBytes           int64
	BlockBytes          int64
	SectorBytes         int64
	PhysicalSectorBytes int64
	Blocks              int64
	PlacedBlocks        int64
	FragmentedBlocks    int64
	// LooksLike is the format that the contents of a raw file look like, "" if none.
	LooksLike string
	// Mappable reports that payload is at multiples of 4 KiB, where it can be mapped.
	Mappable bool
	ID       string
	DiskID   string
	Creator  string
	Created  time.Time
	// Parents are the files below a differencing disk, the nearest first. If one is
	// missing or was replaced, the last entry is the error.
	Parents []string
	// Children are the differencing disks over it.
	Children []string
}

var kindNames = map[disk.Kind]string{disk.Fixed: "fixed", disk.Dynamic: "dynamic", disk.Differencing: "differencing"}

// Describe describes the virtual disk in r, which is called name.
func Describe(ctx context.Context, name string, r blockdev.Reader) (Description, error) {
	return formatsWithin(defaultTableMemory).describe(ctx, name, r)
}

func (o formats) describe(ctx context.Context, name string, r blockdev.Reader) (Description, error) {
	d := Description{Name: name, Format: FormatOf(name), Kind: kindNames[disk.Fixed], SizeBytes: r.Size(), FileBytes: r.Size(), Mappable: true}
	if d.Format == disk.Raw {
		var err error
		d.LooksLike, err = recognize(ctx, r)
		return d, err
	}
	t, err := o.openReadOnly(ctx, d.Format, r)
	if err != nil {
		return Description{}, fmt.Errorf("%s: %w", name, err)
	}
	defer release(t)
	info := t.Info()
	d.Kind, d.SizeBytes, d.BlockBytes = kindNames[info.Kind], info.Size, info.BlockLength
	d.SectorBytes, d.PhysicalSectorBytes = info.SectorLength, info.PhysicalSectorLength
	d.ID, d.DiskID, d.Creator, d.Created = info.ID.String(), info.DiskID.String(), info.Creator, info.Created
	d.Blocks = info.Blocks()
	last := int64(-1)
	for i := range d.Blocks {
		b, err := t.Block(ctx, i)
		if err != nil {
			return Description{}, fmt.Errorf("%s: %w", name, err)
		}
		if b.State != disk.Full && b.State != disk.Partial {
			continue
		}
		d.PlacedBlocks++
		if b.Offset < last {
			d.FragmentedBlocks++
		}
		last = b.Offset
		d.Mappable = d.Mappable && b.Offset%blockdev.BlockLength == 0
	}
	return d, nil
}

// Check returns the defects of the virtual disk in r, which is called name.
func Check(ctx context.Context, name string, r blockdev.Reader) ([]disk.Finding, error) {
	return formatsWithin(defaultTableMemory).checkNamed(ctx, name, r)
}

func (o formats) checkNamed(ctx context.Context, name string, r blockdev.Reader) ([]disk.Finding, error) {
	findings, err := o.check(ctx, FormatOf(name), r)
	if err != nil {
		return nil, err
	}
	// By its name it is a raw disk, which has no structure.
	if err := CheckSource(ctx, name, r); errors.Is(err, ErrForeign) && FormatOf(name) == disk.Raw {
		return append(findings, disk.Finding{Harmless: true, Text: err.Error()}), nil
	} else if err != nil && !errors.Is(err, ErrForeign) {
		return nil, err
	}
	return findings, nil
}

// Describe describes a file of the store.
func (m *Manager) Describe(ctx context.Context, name string) (d Description, err error) {
	err = m.examine(ctx, name, func(r blockdev.Reader) error {
		d, err = m.formats.describe(ctx, name, r)
		return err
	})
	if err != nil {
		return Description{}, err
	}
	if d.Kind == kindNames[disk.Differencing] {
		if d.Parents, err = m.describeParents(ctx, name); err != nil {
			return Description{}, err
		}
	}
	d.Children, err = m.children(ctx, name)
	return d, err
}

// examine calls fn with a file as it is now.
func (m *Manager) examine(ctx context.Context, name string, fn func(r blockdev.Reader) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	f, err := m.store.File(name)
	if err != nil {
		return err
	}
	now, err := m.openPointInTime(ctx, f)
	if err != nil {
		return err
	}
	defer now.release()
	return fn(now)
}

// Geometry returns the shape of the disk in a file. All its parents must exist.
func (m *Manager) Geometry(ctx context.Context, name string) (disk.Geometry, error) {
	src, err := m.openChain(ctx, name)
	if err != nil {
		return disk.Geometry{}, err
	}
	defer src.release()
	if src.disk == nil {
		return disk.Geometry{Size: src.size, BlockLength: rawUnit, SectorLength: 512, PhysicalSectorLength: blockdev.BlockLength}, nil
	}
	return src.disk.Info().Geometry, nil
}

func (m *Manager) describeParents(ctx context.Context, name string) ([]string, error) {
	src, err := m.openChain(ctx, name)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return []string{err.Error()}, nil
	}
	defer src.release()
	return src.names()[1:], nil
}

// Check returns the defects of a file of the store, and of its chain of parents.
func (m *Manager) Check(ctx context.Context, name string) (findings []disk.Finding, err error) {
	err = m.examine(ctx, name, func(r blockdev.Reader) error {
		findings, err = m.formats.checkNamed(ctx, name, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	src, err := m.openChain(ctx, name)
	switch {
	case err == nil:
		for _, p := range src.parents {
			if p.format == disk.Raw {
				findings = append(findings, disk.Finding{Harmless: true, Text: fmt.Sprintf("the parent %s is a raw disk, which nothing identifies: make sure that it is the right one", p.name)})
			}
		}
		src.release()
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case len(findings) == 0 || !errors.Is(err, disk.ErrFormat):
		findings = append(findings, disk.Finding{Text: err.Error()})
	}
	return findings, nil
}

// HostFile is a file outside the store that is only read.
type HostFile struct {
	file *os.File
	size int64
}

// OpenHostFile opens it; the caller closes it.
func OpenHostFile(path string) (*HostFile, error) {
	// Without O_NONBLOCK the open of a named pipe waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &HostFile{f, info.Size()}, nil
}

// Size implements blockdev.Reader.
func (f *HostFile) Size() int64 { return f.size }

// ReadAt implements blockdev.Reader.
func (f *HostFile) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := f.file.ReadAt(p, off)
	return err
}

// Close closes the file.
func (f *HostFile) Close() error { return f.file.Close() }
