package vhd

import (
	"context"
	"fmt"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/vhd/disk"
)

// Operation is an operation on virtual disks.
type Operation string

// The operations.
const (
	// Create creates an empty disk Destination of Size bytes.
	Create Operation = "create"
	// Convert creates Destination, a disk without parents with the contents of Source,
	// in the format of its name.
	Convert Operation = "convert"
	// ToVolume makes the volume Destination equal to the disk Source.
	ToVolume Operation = "to-volume"
	// FromVolume creates Destination, a disk with the contents of the volume Source.
	FromVolume Operation = "from-volume"
	// Snapshot creates Destination, an empty differencing disk over Source.
	Snapshot Operation = "snapshot"
	// Merge merges the differencing disk Source into its parent, or, with the disks
	// between, into Destination, a parent further away, and deletes the children.
	Merge Operation = "merge"
	// Compact removes unused blocks and blocks of zeros, and closes the gaps.
	Compact Operation = "compact"
	// Defragment sorts the blocks by their addresses on the disk, and compacts.
	Defragment Operation = "defrag"
	// Resize sets the Size of a disk.
	Resize Operation = "resize"
	// Import creates Destination from Source, a scratch file that a client has filled,
	// and deletes Source. In the same format the disk is compacted, otherwise it is
	// converted. Paths of parents are relative to Destination.
	Import Operation = "import"
	// Export creates a scratch file from Source: a copy, or a conversion if the name
	// Destination has another format. The result has its name; the client deletes it.
	Export Operation = "export"
)

// Request is an operation with its arguments. Sizes and lengths are bytes.
type Request struct {
	Operation Operation
	// Source is a file of the store; of FromVolume, a volume.
	Source string
	// Destination is a file of the store; of ToVolume, a volume. Compact, Defragment
	// and Resize change Source if it is empty.
	Destination string
	// Overwrite allows an existing Destination, and replaces it.
	Overwrite bool
	// Raw uses Source and Destination as raw disks even if contents or names are those
	// of a foreign format.
	Raw bool
	// Fixed allocates all blocks; otherwise the disk is dynamic. For Create, Convert and
	// FromVolume.
	Fixed bool
	// Size is the capacity, for Create and Resize.
	Size int64
	// BlockLength, SectorLength and PhysicalSectorLength are those of a new disk; zero is
	// that of the source, if possible, or the format's default.
	BlockLength          int64
	SectorLength         int64
	PhysicalSectorLength int64
}

// Progress is the progress of an operation in bytes.
type Progress struct {
	// Done of Total are examined.
	Done  int64
	Total int64
	// Mapped is payload that got another place without being moved, Moved is payload
	// that was read and written.
	Mapped int64
	Moved  int64
}

// Result is the result of an operation.
type Result struct {
	// Name is that of the created or changed file or volume.
	Name string
	// MappedBytes and MovedBytes are those of the last Progress.
	MappedBytes int64
	MovedBytes  int64
	// FileBytesBefore is the length of the replaced file, 0 if there was none.
	FileBytesBefore int64
	FileBytes       int64
	Duration        time.Duration
	// Warnings are for the administrator: one sentence each.
	Warnings []string
}

// job is a running operation.
type job struct {
	manager  *Manager
	request  Request
	report   func(Progress)
	progress Progress
	warnings []string
}

// Do runs an operation. progress, which may be nil, is called during it. Without an error
// the result is durable; after an error or a crash, all files are as they were before.
// The exception is ToVolume over an existing volume, which takes effect in atomic steps of
// 512 MiB or more.
//
// Errors wrap those of package backstore, disk.ErrFormat, ErrBusy and those of Uses.
func (m *Manager) Do(ctx context.Context, r Request, progress func(Progress)) (Result, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	select {
	case m.running <- struct{}{}:
		defer func() { <-m.running }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	began := time.Now()
	j := &job{manager: m, request: r, report: progress}
	result, err := j.run(ctx)
	log := m.log.WithField("operation", r.Operation).WithField("source", r.Source).WithField("destination", r.Destination)
	if err != nil {
		log.WithError(err).Info("operation on a virtual disk failed")
		return Result{}, err
	}
	j.report(j.progress)
	result.MappedBytes, result.MovedBytes = j.progress.Mapped, j.progress.Moved
	result.Duration, result.Warnings = time.Since(began), j.warnings
	log.WithField("mapped_bytes", result.MappedBytes).WithField("moved_bytes", result.MovedBytes).Info("operation on a virtual disk done")
	return result, nil
}

func (j *job) run(ctx context.Context) (Result, error) {
	if err := j.checkForeign(ctx); err != nil {
		return Result{}, err
	}
	switch j.request.Operation {
	case Create:
		return j.create(ctx)
	case Convert:
		return j.convert(ctx, j.manager.openChain)
	case FromVolume:
		return j.convert(ctx, j.manager.openVolume)
	case ToVolume:
		return j.toVolume(ctx)
	case Snapshot:
		return j.makeChild(ctx)
	case Import:
		return j.importDisk(ctx)
	case Export:
		return j.exportDisk(ctx)
	case Merge:
		return j.merge(ctx)
	case Compact:
		return j.rewrite(ctx, byPlace)
	case Defragment:
		return j.rewrite(ctx, byBlock)
	case Resize:
		if j.request.Size <= 0 {
			return Result{}, fmt.Errorf("%w: resize to %d bytes", blockdev.ErrInvalid, j.request.Size)
		}
		return j.rewrite(ctx, byPlace)
	default:
		return Result{}, fmt.Errorf("%w: no operation %q on virtual disks", blockdev.ErrInvalid, j.request.Operation)
	}
}

// naming returns the naming of the result: it replaces the source, and, if the request
// allows that, an existing file.
func (j *job) naming(name string) Naming {
	return Naming{Name: name, Overwrite: j.request.Overwrite || name == j.request.Source}
}

// write creates a file, which fill fills. It deletes the source of an Import in the same
// step.
func (j *job) write(ctx context.Context, n Naming, fill func(f *backstore.Volume) error) (Result, error) {
	result := Result{Name: n.Name}
	if old, err := j.manager.store.File(n.Name); err == nil {
		result.FileBytesBefore = old.Size()
	}
	var replaced []string
	if j.request.Operation == Import {
		replaced = []string{j.request.Source}
	}
	err := j.manager.produce(ctx, n, replaced, func(temp string) error {
		f, err := j.manager.store.CreateFile(ctx, temp)
		if err != nil {
			return err
		}
		if err := fill(f); err != nil {
			return err
		}
		result.FileBytes = f.Size()
		return nil
	})
	return result, err
}

// warnOfSectors adds a warning if a guest sees other sectors than before. A length of 0
// is unknown.
func (j *job) warnOfSectors(from, to int64) {
	if from == 0 || to == 0 || from == to {
		return
	}
	j.warnings = append(j.warnings, fmt.Sprintf("%s has sectors of %d bytes, and %s of %d: partition tables and file systems count in sectors, and are not found by a guest that sees others", j.request.Source, from, j.request.Destination, to))
}

// spec returns the specification of the destination: with the capacity of the source and,
// unless the request has other ones, its sectors.
func (j *job) spec(size int64, like disk.Geometry) disk.Spec {
	s := disk.Spec{Kind: disk.Dynamic, Geometry: disk.Geometry{
		Size: size, BlockLength: j.request.BlockLength, SectorLength: j.request.SectorLength, PhysicalSectorLength: j.request.PhysicalSectorLength,
	}}
	if j.request.Fixed {
		s.Kind = disk.Fixed
	}
	if FormatOf(j.request.Destination) == disk.VHDX {
		// A guest must not see other sectors than before.
		if s.SectorLength == 0 {
			s.SectorLength = like.SectorLength
		}
		if s.PhysicalSectorLength == 0 {
			s.PhysicalSectorLength = like.PhysicalSectorLength
		}
	}
	return s
}

func (j *job) create(ctx context.Context) (Result, error) {
	end, err := j.manager.begin(ctx, j.request.Destination)
	if err != nil {
		return Result{}, err
	}
	defer end()
	if err := j.manager.vacate(ctx, j.request.Destination, j.request.Overwrite); err != nil {
		return Result{}, err
	}
	return j.makeEmpty(ctx)
}

// Make creates the file name, an empty dynamic disk, or a raw one, of size bytes, for the
// LUN that will serve it: it does not call Uses. sector is the length of a sector in
// bytes, if the format has several.
func (m *Manager) Make(ctx context.Context, name string, size, sector int64) error {
	if err := CheckTarget(name); err != nil {
		return err
	}
	j := &job{manager: m, request: Request{Operation: Create, Destination: name, Size: size}}
	if FormatOf(name) == disk.VHDX {
		j.request.SectorLength = sector
	}
	_, err := j.makeEmpty(ctx)
	return err
}

func (j *job) makeEmpty(ctx context.Context) (Result, error) {
	return j.write(ctx, j.naming(j.request.Destination), func(f *backstore.Volume) error {
		t, err := j.makeDisk(ctx, f, j.spec(j.request.Size, disk.Geometry{}))
		if err != nil {
			return err
		}
		t.release()
		return nil
	})
}

// makeDisk creates an empty disk in f, in the format of the destination.
func (j *job) makeDisk(ctx context.Context, f *backstore.Volume, s disk.Spec) (destination, error) {
	if FormatOf(j.request.Destination) == disk.Raw {
		return rawDestination{f, j.manager.engine}, f.Truncate(ctx, s.Size)
	}
	t, err := j.manager.formats.create(ctx, FormatOf(j.request.Destination), f, s)
	if err != nil {
		return nil, err
	}
	return &diskDestination{disk.New(disk.Config{Table: t, Reader: f, Engine: j.manager.engine})}, nil
}

// makeChild creates a differencing disk.
func (j *job) makeChild(ctx context.Context) (Result, error) {
	if FormatOf(j.request.Source) != FormatOf(j.request.Destination) || FormatOf(j.request.Source) == disk.Raw {
		return Result{}, fmt.Errorf("%w: %s and %s have to be of one format, VHD or VHDX", blockdev.ErrInvalid, j.request.Source, j.request.Destination)
	}
	if j.request.Source == j.request.Destination {
		return Result{}, fmt.Errorf("%w: a differencing disk over %s cannot replace it", blockdev.ErrInvalid, j.request.Source)
	}
	// The parent must not change any more.
	end, err := j.manager.begin(ctx, j.request.Source, j.request.Destination)
	if err != nil {
		return Result{}, err
	}
	defer end()
	if err := j.manager.vacate(ctx, j.request.Destination, j.request.Overwrite); err != nil {
		return Result{}, err
	}
	parent, err := j.manager.openChain(ctx, j.request.Source)
	if err != nil {
		return Result{}, err
	}
	defer parent.release()
	if len(parent.parents) >= maxChain {
		return Result{}, fmt.Errorf("%w: %s has %d parents, and a disk over it would have more than it can be opened with; merge some of them first", blockdev.ErrInvalid, j.request.Source, len(parent.parents))
	}
	info := parent.disk.Info()
	f, err := j.manager.store.File(j.request.Source)
	if err != nil {
		return Result{}, err
	}
	s := disk.Spec{Kind: disk.Differencing, Geometry: info.Geometry, DiskID: info.DiskID, Parent: &disk.Parent{
		ID: info.ID, Paths: []string{relative(j.request.Destination, j.request.Source)}, Modified: f.Created(),
	}}
	if j.request.BlockLength != 0 {
		s.BlockLength = j.request.BlockLength
	} else if info.Kind == disk.Fixed {
		s.BlockLength = 0 // it has none of its own
	}
	return j.write(ctx, j.naming(j.request.Destination), func(f *backstore.Volume) error {
		t, err := j.manager.formats.create(ctx, FormatOf(j.request.Destination), f, s)
		if err != nil {
			return err
		}
		release(t)
		return nil
	})
}
