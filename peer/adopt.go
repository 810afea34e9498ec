package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
)

// unwillingTime is how long a peer that lends nothing to this server is not asked again: it is
// older, in another pool, or has another key.
const unwillingTime = time.Minute

// lending is what is known of whether a peer lends extents.
type lending struct {
	unwilling atomic.Int64 // until when it is not asked, in Unix nanoseconds
	adopted   atomic.Int64 // bytes that were adopted
}

// refused reports whether err says that the peer lends nothing, and notes it.
func (l *lending) refused(err error) bool {
	if !errors.Is(err, backstore.ErrNoAdoption) && !errors.Is(err, backstore.ErrNotFound) {
		return false
	}
	l.unwilling.Store(time.Now().Add(unwillingTime).UnixNano())
	return true
}

// lend asks for a loan of a range of the hold.
func (h *remoteHold) lend(ctx context.Context, t backstore.Terms, off, length int64) (l backstore.Loan, err error) {
	body, err := json.Marshal(v1.PeerLendRequest{
		Taker: fmt.Sprintf("%x", t.Store), Pool: fmt.Sprintf("%x", t.Pool), Proof: fmt.Sprintf("%x", t.Proof), Epoch: t.Stamp.Epoch, Seq: t.Stamp.Seq,
	})
	if err != nil {
		return l, err
	}
	err = h.peer.frames(ctx, http.MethodPost, h.path("lend")+query(off, length), body, func(r io.Reader) error {
		l, err = readLoan(r, off, length)
		return err
	})
	return l, err
}

// adoption is the adoptions of one fetch; the zero value tries, if the hold is of a peer and the
// destination a volume of an extent store.
type adoption struct {
	a     *backstore.Adoption
	never bool
	next  int64 // how many bytes to ask for; 0 at first
}

// firstLoan is how many bytes the first request asks for, each later one for twice as many: the
// first one of a peer can take longer, and what a command has adopted when its time is over counts.
const firstLoan = 8 << 20

// beginAdoption returns the hold, if extents of it can be adopted.
func (f *fetch) beginAdoption() (h *remoteHold, ok bool) {
	h, remote := f.h.(*remoteHold)
	if !f.o.Adopt || !remote || f.known == nil || f.adoption.never || time.Now().UnixNano() < h.peer.lending.unwilling.Load() {
		return nil, false
	}
	if f.adoption.a == nil {
		a, err := f.known.BeginAdoption(h.Store())
		if f.adoption.never = err != nil; err != nil {
			return nil, false // this store is in no pool, or its error comes with the write
		}
		f.adoption.a = a
	}
	return h, true
}

// endAdoption ends the adoptions.
func (f *fetch) endAdoption() {
	if f.adoption.a != nil {
		f.adoption.a.End()
		f.adoption.a = nil
	}
}

// adopt adopts the bytes of the hold from src on to a range, at most as many as one request lends,
// and reads what is not lent. It returns how many bytes are done, contiguous from the start, and
// whether those are all that were lent; ok is false if nothing can be adopted, and nothing was done.
func (f *fetch) adopt(src int64, r blockdev.Range) (done int64, all, ok bool, err error) {
	h, ok := f.beginAdoption()
	if !ok || (r.Offset-src)%blockLength != 0 {
		return 0, false, false, nil
	}
	f.adoption.next = min(max(2*f.adoption.next, firstLoan), backstore.MaxLend)
	r.Length = min(r.Length, f.adoption.next)
	n, missing, err := f.borrow(h, src, r)
	if errors.Is(err, errUnwilling) {
		return 0, false, false, f.ctx.Err()
	}
	if err != nil {
		return n, false, true, err
	}
	if done = n; len(missing) > 0 {
		done, err = f.fetchMissing(missing, r.Offset, n, r.Offset-src)
	}
	f.moved(done)
	return done, done == r.Length, true, err
}

// errUnwilling: the peer has not lent a range. It is read instead, which has the error if that
// fails, too.
var errUnwilling = errors.New("the peer lends nothing")

// borrow has the peer lend a range, and adopts what it lends. It returns how many bytes it has
// dealt with, and which of them are missing.
func (f *fetch) borrow(h *remoteHold, src int64, r blockdev.Range) (n int64, missing []blockdev.Range, err error) {
	if f.o.Memory != nil {
		if err := f.takeBytes(f.ctx, lendMemory); err != nil {
			return 0, nil, err
		}
		defer f.o.Memory.Release(f.o.Client, lendMemory)
	}
	loan, err := h.lend(f.ctx, f.adoption.a.Terms(), src, r.Length)
	if err != nil {
		h.peer.lending.refused(err)
		f.adoption.never = true
		return 0, nil, fmt.Errorf("%w: %w", errUnwilling, err)
	}
	n, missing, err = f.adoption.a.Apply(f.ctx, r.Offset, loan)
	h.peer.lending.adopted.Add(n - sum(missing))
	return n, missing, err
}

func (f *fetch) moved(n int64) {
	if f.o.Moved != nil && n > 0 {
		f.o.Moved(n)
	}
}

// fetchMissing reads what is missing of n bytes of the destination from off on, and returns how
// many are done, contiguous from the first one on.
func (f *fetch) fetchMissing(missing []blockdev.Range, off, n, shift int64) (done int64, err error) {
	moved := f.o.Moved
	f.o.Moved = nil // called once the whole is contiguous
	defer func() { f.o.Moved = moved }()
	for len(missing) > 0 {
		some := missing[:min(len(missing), MaxRanges)]
		got, err := f.window(some, shift)
		if err != nil || got < sum(some) {
			for _, x := range some {
				if got < x.Length {
					return x.Offset + got - off, err
				}
				got -= x.Length
			}
		}
		missing = missing[len(some):]
	}
	return n, nil
}
