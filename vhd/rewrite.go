package vhd

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
	"odx/vhd/disk"
)

// placed is a payload block and its place in the old file.
type placed struct {
	index int64
	block disk.Block
}

func byPlace(a, b placed) int { return cmp.Compare(a.block.Offset, b.block.Offset) }
func byBlock(a, b placed) int { return cmp.Compare(a.index, b.index) }

// rewrite rebuilds a disk in the same format and with the same structure: blocks with data
// in the given order without gaps, and no others.
func (j *job) rewrite(ctx context.Context, order func(a, b placed) int) (Result, error) {
	name := cmp.Or(j.request.Destination, j.request.Source)
	if FormatOf(name) != FormatOf(j.request.Source) {
		return Result{}, fmt.Errorf("%w: %s and %s are of different formats; convert changes the format", blockdev.ErrInvalid, j.request.Source, name)
	}
	end, err := j.manager.begin(ctx, name)
	if err != nil {
		return Result{}, err
	}
	defer end()
	if FormatOf(name) == disk.Raw {
		return Result{}, fmt.Errorf("%w: %s has no structure; resize and copy raw files as files", blockdev.ErrInvalid, j.request.Source)
	}
	if name != j.request.Source || j.request.Operation == Resize {
		// Children of an existing file of that name would lose its data.
		if err := j.manager.vacate(ctx, name, j.request.Overwrite || name == j.request.Source); err != nil {
			return Result{}, err
		}
	}
	src, err := j.manager.openPlaced(ctx, j.request.Source, j.place())
	if err != nil {
		return Result{}, err
	}
	defer src.release()
	if err := j.refuseOverlap(src); err != nil {
		return Result{}, err
	}
	info := src.disk.Info()
	spec := disk.Spec{Kind: info.Kind, Geometry: info.Geometry, ID: info.ID, DiskID: info.DiskID, Parent: info.Parent}
	if j.request.Operation == Resize {
		spec.Size, spec.ID = j.request.Size, disk.GUID{}
		if err := j.checkCut(ctx, spec.Size); err != nil {
			return Result{}, err
		}
	}
	return j.write(ctx, j.naming(name), func(f *backstore.Volume) error {
		dst, err := j.manager.formats.create(ctx, src.format, f, spec)
		if err != nil {
			return err
		}
		defer release(dst)
		w := rewriting{job: j, src: src, from: src.disk.Table(), to: dst, file: f}
		w.valid = min(info.Size, spec.Size)
		return w.run(ctx, order)
	})
}

// checkCut returns an error if a disk has data beyond a size.
func (j *job) checkCut(ctx context.Context, size int64) error {
	src, err := j.manager.openChain(ctx, j.request.Source)
	if err != nil {
		return err
	}
	defer src.release()
	for off := size; off < src.size; off += window {
		data, err := dataIn(ctx, src, off, min(window, src.size-off), blockdev.BlockLength)
		if err != nil {
			return err
		}
		for _, p := range data {
			zeros, err := p.isZeros(ctx)
			if err != nil {
				return err
			}
			if !zeros {
				return fmt.Errorf("%w: %s has data after byte %d, which %d bytes would cut off; shrink the partition first and discard what follows it", blockdev.ErrInvalid, j.request.Source, p.at, size)
			}
		}
	}
	return nil
}

// isZeros reads a piece: the store's blocks at its ends can hold other data, too.
func (p piece) isZeros(ctx context.Context) (bool, error) {
	buf := make([]byte, min(p.length, 64<<10))
	for done := int64(0); done < p.length; done += int64(len(buf)) {
		part := buf[:min(p.length-done, int64(len(buf)))]
		if err := p.in.ReadAt(ctx, part, p.from+done); err != nil {
			return false, err
		}
		for _, c := range part {
			if c != 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// rewriting is a disk that is rebuilt.
type rewriting struct {
	job      *job
	src      *source
	from, to disk.Table
	file     *backstore.Volume // the file of to
	valid    int64             // bytes of the disk that both have
}

func (w *rewriting) run(ctx context.Context, order func(a, b placed) int) error {
	blocks, zero, err := w.sort(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(blocks, order)
	w.job.progress.Total = int64(len(blocks)) * w.to.Info().BlockLength
	if w.to.Info().Kind != disk.Fixed {
		if err := w.place(ctx, blocks, zero); err != nil {
			return err
		}
	}
	if err := w.mapBlocks(ctx, blocks); err != nil {
		return err
	}
	for _, b := range blocks {
		if b.block.State == disk.Partial && w.to.Info().Kind == disk.Differencing {
			if err := w.copyPresence(ctx, b.index); err != nil {
				return err
			}
		}
	}
	if err := w.to.Close(ctx); err != nil {
		return err
	}
	return w.file.Flush(ctx)
}

// sort returns the blocks that need a place, and those that must be marked as zeros.
func (w *rewriting) sort(ctx context.Context) (blocks []placed, zero []int64, err error) {
	info := w.to.Info()
	for i := range min(info.Blocks(), w.from.Info().Blocks()) {
		b, err := w.from.Block(ctx, i)
		if err != nil {
			return nil, nil, err
		}
		if b.State == disk.Partial && info.Kind != disk.Differencing {
			if b, err = w.resolve(ctx, i); err != nil {
				return nil, nil, err
			}
		}
		if b.State == disk.Full {
			data := false
			err := w.src.file.snapshot.Extents(ctx, b.Offset, w.length(i), func(_ blockdev.Range, mapped bool) bool {
				data = data || mapped
				return !data
			})
			if err != nil {
				return nil, nil, err
			}
			if !data {
				b.State = disk.Zero
			}
		}
		switch {
		case b.State == disk.Full || b.State == disk.Partial:
			blocks = append(blocks, placed{i, b})
		case b.State == disk.Zero && info.Kind == disk.Differencing:
			zero = append(zero, i)
		}
	}
	return blocks, zero, nil
}

// resolve returns the state of a Partial block of a disk without a parent by its sectors:
// Full if all are present, Zero if none is.
func (w *rewriting) resolve(ctx context.Context, i int64) (disk.Block, error) {
	any := false
	err := w.present(ctx, i, func(_, _ int64) error { any = true; return nil })
	if err != nil || !any {
		return disk.Block{State: disk.Zero}, err
	}
	return w.from.Block(ctx, i)
}

// present calls fn with the runs of sectors of block i that are in the old file.
func (w *rewriting) present(ctx context.Context, i int64, fn func(first, count int64) error) error {
	count := w.length(i) / w.to.Info().SectorLength
	bits, err := w.from.Present(ctx, i, 0, count)
	if err != nil {
		return err
	}
	for first := int64(0); first < count; {
		set, n := bits.Run(first, count)
		if set {
			if err := fn(first, n); err != nil {
				return err
			}
		}
		first += n
	}
	return nil
}

// length returns the bytes of block i that both disks have.
func (w *rewriting) length(i int64) int64 {
	n := w.to.Info().BlockLength
	return min(n, w.valid-i*n)
}

// placedAtOnce bounds the memory that a change of the table takes.
const placedAtOnce = 1 << 16

// place allocates the blocks in their order.
func (w *rewriting) place(ctx context.Context, blocks []placed, zero []int64) error {
	for len(blocks) > 0 {
		state := blocks[0].block.State
		var run []int64
		for len(blocks) > 0 && blocks[0].block.State == state && len(run) < placedAtOnce {
			run = append(run, blocks[0].index)
			blocks = blocks[1:]
		}
		allocate := w.to.Complete
		if state == disk.Partial {
			allocate = w.to.Allocate
		}
		if err := allocate(ctx, run); err != nil {
			return err
		}
	}
	if len(zero) == 0 {
		return nil
	}
	return w.to.Free(ctx, zero)
}

// mapBlocks maps the payload; runs that are contiguous in both files take one step.
func (w *rewriting) mapBlocks(ctx context.Context, blocks []placed) error {
	mapTo := func(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
		return w.job.manager.engine.MapTo(ctx, w.file, dst, s, src, length)
	}
	var p piece
	add := func(next piece) error {
		if p.isBefore(next) {
			p.length += next.length
			return nil
		}
		err := w.job.mapPiece(ctx, mapTo, p)
		p = next
		return err
	}
	info := w.to.Info()
	for _, b := range blocks {
		to, err := w.to.Block(ctx, b.index)
		if err != nil {
			return err
		}
		whole := piece{to.Offset, w.length(b.index), w.src.file, b.block.Offset}
		w.job.progress.Done += whole.length
		if b.block.State == disk.Partial && info.Kind != disk.Differencing {
			// The new block is Full: absent sectors of the old one must stay zeros.
			err = w.present(ctx, b.index, func(first, count int64) error {
				off := first * info.SectorLength
				return add(piece{whole.at + off, count * info.SectorLength, whole.in, whole.from + off})
			})
		} else {
			err = add(whole)
		}
		if err != nil {
			return err
		}
	}
	return w.job.mapPiece(ctx, mapTo, p)
}

// copyPresence copies the bitmap of a block.
func (w *rewriting) copyPresence(ctx context.Context, i int64) error {
	return w.present(ctx, i, func(first, count int64) error { return w.to.SetPresent(ctx, i, first, count) })
}
