package view

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"odx/blockdev"
	"odx/offload"
)

// stripe is RAID 0: consecutive stripe units are on consecutive legs.
//
// An offload read returns a piece per stripe unit, so a token represents at most
// MaxPieces stripe units. An offload write maps one stripe unit at a time.
type stripe struct {
	legs []Device
	unit int64
}

// NewStripe returns a stripe over two or more legs. unit is the length of a stripe unit
// in bytes, a multiple of blockdev.BlockLength. The stripe uses the number of stripe
// units in the smallest leg of each leg.
func NewStripe(legs []Device, unit int64) (Device, error) {
	if len(legs) < 2 || unit <= 0 || unit%blockdev.BlockLength != 0 {
		return nil, fmt.Errorf("%w: stripe of %d legs, unit of %d bytes", blockdev.ErrInvalid, len(legs), unit)
	}
	v := &stripe{legs: legs, unit: unit}
	if v.Size() == 0 {
		return nil, fmt.Errorf("%w: stripe with a leg smaller than the unit of %d bytes", blockdev.ErrInvalid, unit)
	}
	return v, nil
}

func (v *stripe) Size() int64 {
	least := v.legs[0].Size()
	for _, leg := range v.legs[1:] {
		least = min(least, leg.Size())
	}
	return least / v.unit * v.unit * int64(len(v.legs))
}

func (v *stripe) Backing() (all []blockdev.Volume) {
	for _, leg := range v.legs {
		all = append(all, leg.Backing()...)
	}
	return all
}

func (v *stripe) Flush(ctx context.Context) error {
	var g errgroup.Group
	for _, leg := range v.legs {
		g.Go(func() error { return leg.Flush(ctx) })
	}
	return g.Wait()
}

// at returns the leg of byte off, the offset on that leg, and the bytes left in its
// stripe unit.
func (v *stripe) at(off int64) (leg int, legOff, left int64) {
	n, in := off/v.unit, off%v.unit
	legs := int64(len(v.legs))
	return int(n % legs), n/legs*v.unit + in, v.unit - in
}

// each calls fn for the stripe units of a range, concurrently for different legs. Its
// error is that of the first unit that is damaged, if no leg has another one.
func (v *stripe) each(off, length int64, fn func(leg Device, legOff, from, n int64) error) error {
	var g sync.WaitGroup
	var mu sync.Mutex
	var failed error // guarded by mu
	for i, leg := range v.legs {
		g.Go(func() {
			for from := int64(0); from < length; {
				at, legOff, n := v.at(off + from)
				n = min(n, length-from)
				if at == i {
					if err := fn(leg, legOff, from, n); err != nil {
						mu.Lock()
						defer mu.Unlock()
						failed = blockdev.First(failed, blockdev.Translate(err, off+from-legOff))
						return
					}
				}
				from += n
			}
		})
	}
	g.Wait()
	return failed
}

func (v *stripe) ReadAt(ctx context.Context, p []byte, off int64) error {
	if leg, legOff, left := v.at(off); int64(len(p)) <= left {
		return blockdev.Translate(v.legs[leg].ReadAt(ctx, p, legOff), off-legOff)
	}
	return v.each(off, int64(len(p)), func(leg Device, legOff, from, n int64) error {
		return leg.ReadAt(ctx, p[from:from+n], legOff)
	})
}

func (v *stripe) WriteAt(ctx context.Context, p []byte, off int64) error {
	if leg, legOff, left := v.at(off); int64(len(p)) <= left {
		return v.legs[leg].WriteAt(ctx, p, legOff)
	}
	return v.each(off, int64(len(p)), func(leg Device, legOff, from, n int64) error {
		return leg.WriteAt(ctx, p[from:from+n], legOff)
	})
}

// Unmap unmaps one range of each leg: a range of the stripe is contiguous on each leg.
func (v *stripe) Unmap(ctx context.Context, off, length int64) error {
	for i, leg := range v.legs {
		from := v.legBytes(i, off)
		if n := v.legBytes(i, off+length) - from; n > 0 {
			if err := leg.Unmap(ctx, from, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// legBytes returns the number of the first off bytes that are on a leg.
func (v *stripe) legBytes(leg int, off int64) int64 {
	row := v.unit * int64(len(v.legs))
	in := off%row - int64(leg)*v.unit
	return off/row*v.unit + min(max(in, 0), v.unit)
}

// copier asks all legs: a flush is of all of them.
func (v *stripe) copier(off, length int64) *offload.Engine {
	for i, leg := range v.legs {
		from := v.legBytes(i, off)
		if e := copierOf(leg, from, v.legBytes(i, off+length)-from); e != nil {
			return e
		}
	}
	return nil
}

func (v *stripe) Locate(ctx context.Context, off, length int64) ([]offload.Piece, error) {
	var all []offload.Piece
	for length > 0 && len(all) < MaxPieces {
		leg, legOff, left := v.at(off)
		want := min(left, length)
		pieces, err := v.legs[leg].Locate(ctx, legOff, want)
		if err != nil {
			return nil, err
		}
		all = append(all, pieces...)
		for _, p := range pieces {
			off, length, want = off+p.Length, length-p.Length, want-p.Length
		}
		if want > 0 {
			break
		}
	}
	return all, nil
}

func (v *stripe) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	leg, legOff, left := v.at(dst)
	return v.legs[leg].Map(ctx, legOff, s, src, min(left, length))
}
