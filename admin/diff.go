package admin

import (
	"context"
	"fmt"

	"odx/backstore"
	"odx/blockdev"
)

// DiffRequest says what is compared: two volumes of the store, of whatever kind. FilePrefix
// and the name of a file stand for a file.
type DiffRequest struct {
	Name string
	// Base is what it is compared with; empty: with nothing but holes, which lists what
	// is allocated.
	Base string
	// Offset and Length are the range that is compared, in bytes; Length 0: up to the end.
	Offset, Length int64
}

// DiffRange is a range of bytes of the volume that may differ from the base.
type DiffRange struct {
	Offset, Length int64
	// Hole: it reads as zeros in the volume, and takes no space.
	Hole bool
}

// Diff is what a comparison found.
type Diff struct {
	SizeBytes int64
	// BaseBytes is the size of the base, 0 without one. The shorter one counts as if
	// holes followed.
	BaseBytes int64
	// Ranges is the number of ranges; DataBytes and HoleBytes are how long they are.
	Ranges, DataBytes, HoleBytes int64
}

// diffBatch is how many ranges are passed at once.
const diffBatch = 512

// Diff implements Administrator.
func (s *Store) Diff(ctx context.Context, r DiffRequest, found func([]DiffRange) error) (d Diff, err error) {
	n, err := s.pinObject(ctx, r.Name)
	if err != nil {
		return d, err
	}
	defer n.Release()
	var base *backstore.Snapshot
	if r.Base != "" {
		if base, err = s.pinObject(ctx, r.Base); err != nil {
			return d, err
		}
		defer base.Release()
		d.BaseBytes = base.Length()
	}
	d.SizeBytes = n.Length()
	if !(blockdev.Range{Offset: r.Offset, Length: r.Length}).In(d.SizeBytes) {
		return d, fmt.Errorf("%s: %w: %d bytes at %d are not inside its %d bytes", r.Name, blockdev.ErrInvalid, r.Length, r.Offset, d.SizeBytes)
	}
	if r.Length == 0 {
		r.Length = d.SizeBytes - r.Offset
	}
	batch := make([]DiffRange, 0, diffBatch)
	pass := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := found(batch)
		batch = batch[:0]
		return err
	}
	err = n.Diff(ctx, base, r.Offset, r.Length, func(one backstore.Difference) error {
		d.Ranges++
		if one.Hole {
			d.HoleBytes += one.Length
		} else {
			d.DataBytes += one.Length
		}
		if batch = append(batch, DiffRange{one.Offset, one.Length, one.Hole}); len(batch) < diffBatch {
			return nil
		}
		return pass()
	})
	if err == nil {
		err = pass()
	}
	return d, err
}

// pinObject returns all of a volume or a file as it is now, for as long as the caller has it.
func (s *Store) pinObject(ctx context.Context, name string) (n *backstore.Snapshot, err error) {
	return n, s.onRange(name, 0, 0, func(v *backstore.Volume) error {
		n, err = s.Pin(ctx, v)
		return err
	})
}
