package vhd

import (
	"cmp"
	"context"
	"fmt"

	"odx/backstore"
	"odx/blockdev"
	"odx/vhd/disk"
)

// place returns the name to which the paths of the source's parents are relative.
func (j *job) place() string {
	if j.request.Operation == Import {
		return j.request.Destination
	}
	return j.request.Source
}

// reshaped reports whether the request has a shape of its own.
func (j *job) reshaped() bool {
	return j.request.Fixed || cmp.Or(j.request.BlockLength, j.request.SectorLength, j.request.PhysicalSectorLength) != 0
}

// importDisk creates a disk from a scratch file.
func (j *job) importDisk(ctx context.Context) (Result, error) {
	if !IsScratch(j.request.Source) {
		return Result{}, fmt.Errorf("%w: %s is not a scratch file", blockdev.ErrInvalid, j.request.Source)
	}
	end, err := j.manager.take(ctx, j.request.Source)
	if err != nil {
		return Result{}, err
	}
	defer end()
	if err := j.warnOfDamage(ctx); err != nil {
		return Result{}, err
	}
	if f := FormatOf(j.request.Source); f == FormatOf(j.request.Destination) && f != disk.Raw && !j.reshaped() {
		return j.rewrite(ctx, byPlace)
	}
	return j.convert(ctx, func(ctx context.Context, name string) (*source, error) {
		return j.manager.openChainPlaced(ctx, name, j.place())
	})
}

// exportDisk creates a scratch file from a disk.
func (j *job) exportDisk(ctx context.Context) (Result, error) {
	if err := checkName(j.request.Source); err != nil {
		return Result{}, err
	}
	if FormatOf(j.request.Source) == FormatOf(j.request.Destination) && !j.reshaped() {
		f, err := j.manager.store.File(j.request.Source)
		if err != nil {
			return Result{}, err
		}
		scratch, err := j.manager.CopyToScratch(ctx, f, j.request.Destination)
		if err != nil {
			return Result{}, err
		}
		return Result{Name: scratch.Name(), FileBytes: scratch.Size()}, nil
	}
	src, err := j.manager.openChain(ctx, j.request.Source)
	if err != nil {
		return Result{}, err
	}
	defer src.release()
	j.warnOfOverlap(src)
	scratch := scratchName(FormatOf(j.request.Destination))
	j.manager.Touch(scratch)
	return j.write(ctx, Naming{Name: scratch}, func(f *backstore.Volume) error { return j.copyTo(ctx, f, src) })
}
