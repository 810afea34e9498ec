package disk

import (
	"context"

	"odx/blockdev"
	"odx/offload"
)

// Run is a range of a disk whose bytes are contiguous in one container, or absent.
type Run struct {
	// Offset and Length are bytes of the disk.
	Offset, Length int64
	// In has the bytes, starting at At. If In is nil, the bytes are zeros or, if Below
	// is set, those of a parent without which the disk was opened.
	In    blockdev.Reader
	At    int64
	Below bool
}

// Runs calls fn with the runs of a range, in order, until fn returns false. The disk
// must not be written during the call. Adjacent runs can be contiguous.
func (d *Disk) Runs(ctx context.Context, off, length int64, fn func(Run) bool) error {
	if err := d.check(off, length); err != nil {
		return err
	}
	more := true
	for done := int64(0); done < length && more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := d.span(off, length, done)
		if err := d.runsOfSpan(ctx, s, off+done, func(r Run) bool { more = more && fn(r); return more }); err != nil {
			return err
		}
		done += s.length
	}
	return nil
}

func (d *Disk) runsOfSpan(ctx context.Context, s span, at int64, fn func(Run) bool) error {
	b, err := d.table.Block(ctx, s.block)
	if err != nil {
		return err
	}
	switch b.State {
	case Full:
		fn(Run{Offset: at, Length: s.length, In: d.reader, At: b.Offset + s.off})
		return nil
	case Zero:
		fn(Run{Offset: at, Length: s.length})
		return nil
	case Absent:
		return d.runsBelow(ctx, at, s.length, fn)
	default:
		return d.presence(ctx, s, func(set bool, from, n int64) error {
			if set {
				fn(Run{Offset: at + from, Length: n, In: d.reader, At: b.Offset + s.off + from})
				return nil
			}
			return d.runsBelow(ctx, at+from, n, fn)
		})
	}
}

func (d *Disk) runsBelow(ctx context.Context, at, length int64, fn func(Run) bool) error {
	if d.parent == nil {
		fn(Run{Offset: at, Length: length, Below: d.table.Info().Kind == Differencing})
		return nil
	}
	here := min(max(d.parent.Size()-at, 0), length)
	if here > 0 {
		if err := d.parent.Runs(ctx, at, here, fn); err != nil {
			return err
		}
	}
	if here < length {
		fn(Run{Offset: at + here, Length: length - here})
	}
	return nil
}

// maxPieces bounds the number of pieces that Locate returns.
const maxPieces = 1 << 10

// Locate returns the pieces of a range, or of its beginning, in volumes. They are valid
// until the disk is written.
func (d *Disk) Locate(ctx context.Context, off, length int64) ([]offload.Piece, error) {
	if err := d.gate.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer d.gate.Release(1)
	var pieces []offload.Piece
	err := d.Runs(ctx, off, length, func(r Run) bool {
		p := offload.Piece{Offset: r.At, Length: r.Length}
		if r.In != nil {
			p.Volume = r.In.(blockdev.Volume)
		}
		if n := len(pieces); n > 0 && pieces[n-1].Volume == p.Volume && (p.Volume == nil || pieces[n-1].Offset+pieces[n-1].Length == p.Offset) {
			pieces[n-1].Length += p.Length
			return true
		}
		pieces = append(pieces, p)
		return len(pieces) < maxPieces
	})
	return pieces, err
}

// Backing returns the volumes of the disk and its parents.
func (d *Disk) Backing() []blockdev.Volume {
	var volumes []blockdev.Volume
	for ; d != nil; d = d.parent {
		if v, ok := d.reader.(blockdev.Volume); ok {
			volumes = append(volumes, v)
		}
	}
	return volumes
}
