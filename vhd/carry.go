package vhd

import (
	"cmp"
	"context"
	"fmt"

	"odx/backstore"
	"odx/blockdev"
	"odx/vhd/disk"
)

// place is the name that the paths of the source's parents count from.
func (j *job) place() string {
	if j.Operation == Import {
		return j.Destination
	}
	return j.Source
}

// reshaped reports whether another shape is asked for than the source has.
func (j *job) reshaped() bool {
	return j.Fixed || cmp.Or(j.BlockLength, j.SectorLength, j.PhysicalSectorLength) != 0
}

// bring makes a disk of a scratch file.
func (j *job) bring(ctx context.Context) (Result, error) {
	if !IsScratch(j.Source) {
		return Result{}, fmt.Errorf("%w: %s is no file that was begun to be imported", blockdev.ErrInvalid, j.Source)
	}
	end, err := j.take(ctx, j.Source)
	if err != nil {
		return Result{}, err
	}
	defer end()
	if f := FormatOf(j.Source); f == FormatOf(j.Destination) && f != disk.Raw && !j.reshaped() {
		return j.rewrite(ctx, byPlace)
	}
	return j.convert(ctx, func(ctx context.Context, name string) (*source, error) {
		return j.openChainPlaced(ctx, name, j.place())
	})
}

// hand makes a scratch file of a disk.
func (j *job) hand(ctx context.Context) (Result, error) {
	if err := checkName(j.Source); err != nil {
		return Result{}, err
	}
	if FormatOf(j.Source) == FormatOf(j.Destination) && !j.reshaped() {
		f, err := j.store.File(j.Source)
		if err != nil {
			return Result{}, err
		}
		scratch, err := j.CopyToScratch(ctx, f, j.Destination)
		if err != nil {
			return Result{}, err
		}
		return Result{Name: scratch.Name(), FileBytes: scratch.Size()}, nil
	}
	src, err := j.openChain(ctx, j.Source)
	if err != nil {
		return Result{}, err
	}
	defer src.release()
	scratch := scratchName(FormatOf(j.Destination))
	j.Touch(scratch)
	return j.write(ctx, Naming{Name: scratch}, func(f *backstore.Volume) error { return j.copyTo(ctx, f, src) })
}
