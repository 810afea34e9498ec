package vhd

import (
	"context"
	"fmt"
	"slices"

	"odx/backstore"
	"odx/blockdev"
	"odx/vhd/disk"
)

// merge maps the own data of the source and of the disks between to a copy of the parent,
// which replaces the parent in one step with the deletion of the children.
func (j *job) merge(ctx context.Context) (Result, error) {
	children, into, err := j.mergeNames(ctx)
	if err != nil {
		return Result{}, err
	}
	all := append(children, into)
	end, err := j.manager.begin(ctx, all...)
	if err != nil {
		return Result{}, err
	}
	defer end()
	// Only now, when no other operation changes them: the children will be deleted.
	src, err := j.manager.openChain(ctx, j.request.Source)
	if err != nil {
		return Result{}, err
	}
	defer src.release()
	if names := src.names(); len(names) < len(all) || !slices.Equal(names[:len(all)], all) {
		return Result{}, fmt.Errorf("merge %s: its chain: %w", j.request.Source, backstore.ErrChanged)
	}
	levels := len(children)
	if err := j.checkMerge(ctx, src, levels); err != nil {
		return Result{}, err
	}
	parent := src.parents[levels-1]
	result := Result{Name: parent.name, FileBytesBefore: parent.file.size}
	err = j.manager.produce(ctx, Naming{Name: parent.name, Overwrite: true}, children, func(temp string) error {
		f, err := j.copyOf(ctx, parent, src.size, temp)
		if err != nil {
			return err
		}
		if err := j.mergeInto(ctx, f, src, levels); err != nil {
			return err
		}
		result.FileBytes = f.Size()
		return nil
	})
	return result, err
}

// checkMerge returns an error if one of the disks has overlapping blocks, or children that
// would lose their parent.
func (j *job) checkMerge(ctx context.Context, src *source, levels int) error {
	but := ""
	for _, s := range append([]*source{src}, src.parents[:levels]...) {
		if err := j.refuseOverlap(s); err != nil {
			return err
		}
		if err := j.manager.CheckNoChildren(ctx, s.name, but); err != nil {
			return err
		}
		but = s.name
	}
	return nil
}

// mergeNames returns the disks that are merged, the last one first, and the parent
// that they are merged into.
func (j *job) mergeNames(ctx context.Context) (children []string, into string, err error) {
	src, err := j.manager.openChain(ctx, j.request.Source)
	if err != nil {
		return nil, "", err
	}
	defer src.release()
	levels, err := j.levels(src)
	if err != nil {
		return nil, "", err
	}
	names := src.names()
	return names[:levels:levels], names[levels], nil
}

// levels returns how many disks are merged.
func (j *job) levels(src *source) (int, error) {
	if src.disk == nil || len(src.parents) == 0 {
		return 0, fmt.Errorf("%w: %s is no differencing disk; there is nothing to merge it into", blockdev.ErrInvalid, src.name)
	}
	if j.request.Destination == "" {
		return 1, nil
	}
	for i, p := range src.parents {
		if p.name == j.request.Destination {
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("%w: %s is no parent of %s", blockdev.ErrInvalid, j.request.Destination, src.name)
}

// copyOf makes a file that equals a parent, with the capacity of the child.
func (j *job) copyOf(ctx context.Context, parent *source, size int64, name string) (*backstore.Volume, error) {
	f, err := j.manager.store.File(parent.name)
	if err != nil {
		return nil, err
	}
	if parent.size == size || parent.format == disk.Raw {
		if f, err = j.manager.store.CloneFile(ctx, f, name); err != nil || parent.size == size {
			return f, err
		}
		return f, f.Truncate(ctx, size)
	}
	// A child can have been resized.
	if f, err = j.manager.store.CreateFile(ctx, name); err != nil {
		return nil, err
	}
	info := parent.disk.Info()
	spec := disk.Spec{Kind: info.Kind, Geometry: info.Geometry, DiskID: info.DiskID, Parent: info.Parent}
	spec.Size = size
	to, err := j.manager.formats.create(ctx, parent.format, f, spec)
	if err != nil {
		return nil, err
	}
	defer release(to)
	w := rewriting{job: j, src: parent, from: parent.disk.Table(), to: to, file: f, valid: min(info.Size, size)}
	return f, w.run(ctx, byPlace)
}

// mergeInto writes the own data of the first levels of a chain to a copy of their parent,
// the oldest first.
func (j *job) mergeInto(ctx context.Context, f *backstore.Volume, src *source, levels int) error {
	parent := src.parents[levels-1]
	t, err := j.manager.formats.open(ctx, parent.format, f)
	if err != nil {
		return err
	}
	defer release(t)
	dst := disk.New(disk.Config{Table: t, Reader: f, Engine: j.manager.engine, Parent: parent.disk.Parent()})
	j.progress = Progress{Total: src.size * int64(levels), Mapped: j.progress.Mapped, Moved: j.progress.Moved}
	for i := levels - 1; i >= 0; i-- {
		level := src
		if i > 0 {
			level = src.parents[i-1]
		}
		own := *level
		own.disk = disk.New(disk.Config{Table: level.disk.Table(), Reader: level.file})
		if err := j.mergeLevel(ctx, dst, &own); err != nil {
			return err
		}
	}
	return dst.Close(ctx)
}

// mergeLevel writes the own data of one disk.
func (j *job) mergeLevel(ctx context.Context, dst *disk.Disk, own *source) error {
	for off := int64(0); off < own.size; off += window {
		length := min(window, own.size-off)
		var zeros []blockdev.Range
		var pieces []piece
		err := own.Runs(ctx, off, length, func(r disk.Run) bool {
			switch {
			case r.Below:
			case r.In == nil:
				zeros = append(zeros, blockdev.Range{Offset: r.Offset, Length: r.Length})
			default:
				pieces = append(pieces, piece{r.Offset, r.Length, own.file, r.At})
			}
			return true
		})
		if err != nil {
			return err
		}
		for _, z := range zeros {
			if err := dst.Unmap(ctx, z.Offset, z.Length); err != nil {
				return err
			}
		}
		if err := j.put(ctx, &diskDestination{dst}, pieces); err != nil {
			return err
		}
		j.progress.Done += length
		j.report(j.progress)
	}
	return nil
}
