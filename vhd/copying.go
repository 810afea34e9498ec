package vhd

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
	"odx/vhd/disk"
)

// destination is an empty disk that is being filled.
type destination interface {
	// unit is the allocation unit in bytes.
	unit() int64
	// allocate allocates units.
	allocate(ctx context.Context, units []int64) error
	// Map is disk.Disk.Map.
	Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error)
	// Close ends the filling, durably.
	Close(ctx context.Context) error
	// release frees the memory of the table, after Close or without it.
	release()
}

// diskDestination is a VHD or VHDX.
type diskDestination struct{ *disk.Disk }

func (t *diskDestination) release()    { release(t.Table()) }
func (t *diskDestination) unit() int64 { return t.Info().BlockLength }

func (t *diskDestination) allocate(ctx context.Context, blocks []int64) error {
	var missing []int64
	for _, i := range blocks {
		b, err := t.Table().Block(ctx, i)
		if err != nil {
			return err
		}
		if b.State == disk.Absent || b.State == disk.Zero {
			missing = append(missing, i)
		}
	}
	return t.Reserve(ctx, missing)
}

// rawDestination is a raw file or a volume.
type rawDestination struct {
	volume *backstore.Volume
	engine *offload.Engine
}

// rawUnit is the span of a node of the map.
const rawUnit = 2 << 20

func (t rawDestination) unit() int64                             { return rawUnit }
func (t rawDestination) allocate(context.Context, []int64) error { return nil }
func (t rawDestination) release()                                {}
func (t rawDestination) Close(ctx context.Context) error         { return t.volume.Flush(ctx) }
func (t rawDestination) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	return t.engine.MapTo(ctx, t.volume, dst, s, src, length)
}

// window is the range of a disk that is examined before it is copied. It bounds the memory
// for the places of its bytes.
const window = 1 << 30

// fill makes an empty disk equal to a source, which is not longer.
func (j *job) fill(ctx context.Context, dst destination, src *source) error {
	j.progress.Total = src.size
	for off := int64(0); off < src.size; off += window {
		length := min(window, src.size-off)
		pieces, err := dataIn(ctx, src, off, length, dst.unit())
		if err != nil {
			return err
		}
		if err := j.put(ctx, dst, pieces); err != nil {
			return err
		}
		j.progress.Done = off + length
		j.report(j.progress)
	}
	return dst.Close(ctx)
}

// piece is a range of a point-in-time view and its place on a disk.
type piece struct {
	at     int64 // on the disk
	length int64
	in     *pointInTime
	from   int64
}

// dataIn returns the places of the bytes of a range, without the units that are holes of
// the store from end to end.
func dataIn(ctx context.Context, src *source, off, length, unit int64) ([]piece, error) {
	var runs []piece
	err := src.Runs(ctx, off, length, func(r disk.Run) bool {
		if r.In == nil {
			return true
		}
		p := piece{r.Offset, r.Length, r.In.(*pointInTime), r.At}
		if n := len(runs); n > 0 && runs[n-1].isBefore(p) {
			runs[n-1].length += p.length
		} else {
			runs = append(runs, p)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	var data []piece
	for _, r := range runs {
		part, err := r.withData(ctx, unit)
		if err != nil {
			return nil, err
		}
		data = append(data, part...)
	}
	return data, nil
}

// isBefore reports whether q continues p, on the disk and in the view.
func (p piece) isBefore(q piece) bool {
	return p.in == q.in && p.at+p.length == q.at && p.from+p.length == q.from
}

// withData returns the parts of p, split at the boundaries of units of the disk, that have
// any data.
func (p piece) withData(ctx context.Context, unit int64) ([]piece, error) {
	var parts []piece
	end := p.at // of the last part
	err := p.in.snapshot.Extents(ctx, p.from, p.length, func(r blockdev.Range, mapped bool) bool {
		if !mapped {
			return true
		}
		at := r.Offset - p.from + p.at
		lo := max(at/unit*unit, end)
		hi := min((at+r.Length+unit-1)/unit*unit, p.at+p.length)
		if lo >= hi {
			return true
		}
		part := piece{lo, hi - lo, p.in, p.from + lo - p.at}
		if n := len(parts); n > 0 && parts[n-1].isBefore(part) {
			parts[n-1].length += part.length
		} else {
			parts = append(parts, part)
		}
		end = hi
		return true
	})
	return parts, err
}

// put maps pieces to their places on a disk.
func (j *job) put(ctx context.Context, dst destination, pieces []piece) error {
	var units []int64
	for _, p := range pieces {
		for u := p.at / dst.unit(); u*dst.unit() < p.at+p.length; u++ {
			if n := len(units); n == 0 || units[n-1] != u {
				units = append(units, u)
			}
		}
	}
	if err := dst.allocate(ctx, units); err != nil {
		return err
	}
	for _, p := range pieces {
		if err := j.mapPiece(ctx, dst.Map, p); err != nil {
			return err
		}
	}
	return nil
}

// mapPiece maps a piece, in several steps if necessary.
func (j *job) mapPiece(ctx context.Context, to func(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error), p piece) error {
	for p.length > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := to(ctx, p.at, p.in.snapshot, p.from, p.length)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("nothing was mapped")
		}
		if (p.at-p.from)%blockdev.BlockLength == 0 {
			j.progress.Mapped += n
		} else {
			j.progress.Moved += n
		}
		p.at, p.from, p.length = p.at+n, p.from+n, p.length-n
	}
	j.report(j.progress)
	return nil
}

// convert creates a disk without parents from the source that open returns.
func (j *job) convert(ctx context.Context, open func(ctx context.Context, name string) (*source, error)) (Result, error) {
	end, err := j.manager.begin(ctx, j.request.Destination)
	if err != nil {
		return Result{}, err
	}
	defer end()
	inPlace := j.request.Operation == Convert && j.request.Source == j.request.Destination
	if err := j.manager.vacate(ctx, j.request.Destination, j.request.Overwrite || inPlace); err != nil {
		return Result{}, err
	}
	src, err := open(ctx, j.request.Source)
	if err != nil {
		return Result{}, err
	}
	defer src.release()
	j.warnOfOverlap(src)
	return j.write(ctx, j.naming(j.request.Destination), func(f *backstore.Volume) error { return j.copyTo(ctx, f, src) })
}

// copyTo creates a disk in f with the contents of src.
func (j *job) copyTo(ctx context.Context, f *backstore.Volume, src *source) error {
	dst, err := j.makeDisk(ctx, f, j.specFor(src))
	if err != nil {
		return err
	}
	defer dst.release()
	return j.fill(ctx, dst, src)
}

// specFor is spec for the contents of src. A raw file can end in the middle of a
// sector.
func (j *job) specFor(src *source) disk.Spec {
	var like disk.Geometry
	if src.disk != nil {
		like = src.disk.Info().Geometry
	}
	s := j.spec(src.size, like)
	j.warnOfSectors(like.SectorLength, cmp.Or(s.SectorLength, 512))
	sector := max(s.SectorLength, 512)
	if FormatOf(j.request.Destination) != disk.Raw {
		s.Size = (s.Size + sector - 1) / sector * sector
	}
	return s
}

// toVolume makes a volume equal to a disk. A new volume appears when it is complete; an
// existing one is overwritten.
func (j *job) toVolume(ctx context.Context) (_ Result, err error) {
	if err := j.manager.uses.CheckVolume(j.request.Destination); err != nil {
		return Result{}, err
	}
	old, err := j.manager.store.Volume(j.request.Destination)
	if err != nil && !errors.Is(err, backstore.ErrNotFound) {
		return Result{}, err
	}
	if old != nil && !j.request.Overwrite {
		return Result{}, fmt.Errorf("volume %s: %w", j.request.Destination, backstore.ErrExists)
	}
	src, err := j.manager.openChain(ctx, j.request.Source)
	if err != nil {
		return Result{}, err
	}
	defer src.release()
	j.warnOfOverlap(src)
	if src.disk != nil && src.disk.Info().SectorLength != 512 {
		j.warnings = append(j.warnings, fmt.Sprintf("%s has sectors of %d bytes; serve volume %s with block_size: %d", j.request.Source, src.disk.Info().SectorLength, j.request.Destination, src.disk.Info().SectorLength))
	}
	result := Result{Name: j.request.Destination}
	// The volume has zeros after the end of the disk.
	size := (src.size + 511) / 512 * 512
	if old != nil {
		if old.Size() < src.size {
			return Result{}, fmt.Errorf("%w: %s has %d bytes, and volume %s %d; make that larger first", blockdev.ErrInvalid, j.request.Source, src.size, j.request.Destination, old.Size())
		}
		size = old.Size()
		result.FileBytesBefore = size
	}
	result.FileBytes = size
	whole, err := j.manager.store.CreateFile(ctx, tempName())
	if err != nil {
		return Result{}, err
	}
	defer func() {
		err = errors.Join(err, j.manager.store.DeleteFile(context.WithoutCancel(ctx), whole.Name()))
	}()
	if err := whole.Truncate(ctx, size); err != nil {
		return Result{}, err
	}
	if err := j.fill(ctx, rawDestination{whole, j.manager.engine}, src); err != nil {
		return Result{}, err
	}
	if old != nil {
		return result, j.overwrite(ctx, old, whole)
	}
	_, err = j.manager.store.VolumeOf(ctx, whole, j.request.Destination)
	return result, err
}

// overwrite makes a volume equal to a file of the same length, durably.
func (j *job) overwrite(ctx context.Context, v, f *backstore.Volume) error {
	now, err := j.manager.openPointInTime(ctx, f)
	if err != nil {
		return err
	}
	defer now.release()
	for done := int64(0); done < now.size; {
		n, err := j.manager.engine.MapTo(ctx, v, done, now.snapshot, done, now.size-done)
		if err != nil {
			return err
		}
		done += n
	}
	return v.Flush(ctx)
}
