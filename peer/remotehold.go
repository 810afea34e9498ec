package peer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/tokens"
)

// HoldToken implements Peer.
func (r *Remote) HoldToken(ctx context.Context, t *tokens.Token, who tokens.Requester) (Hold, error) {
	h, err := r.hold(ctx, v1.PeerHoldRequest{Token: t[:], Initiator: who.Initiator})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// HoldVolume implements Peer.
func (r *Remote) HoldVolume(ctx context.Context, name, base string) (Hold, error) {
	h, err := r.hold(ctx, v1.PeerHoldRequest{Volume: name, Base: base})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// hold takes a hold, or confirms the one that the request names.
func (r *Remote) hold(ctx context.Context, p v1.PeerHoldRequest) (*remoteHold, error) {
	p.Store = r.storeID
	var a v1.PeerHold
	if err := r.Call(ctx, http.MethodPost, Path+"holds", p, &a); err != nil {
		return nil, err
	}
	if err := r.checkStore(a.Store); err != nil {
		return nil, err
	}
	if a.Hold == "" || len(a.Hold) > 64 || strings.ContainsAny(a.Hold, "/?#%") || a.Length < 0 || a.LeaseMS <= 0 || a.DedupUnit < blockLength || a.DedupUnit%blockLength != 0 {
		return nil, fmt.Errorf("%w: %s: hold %.70q of %d bytes", ErrProtocol, r.name, a.Hold, a.Length)
	}
	if p.Hold != "" {
		return nil, nil // confirmed
	}
	h := &remoteHold{peer: r, id: a.Hold, length: a.Length, unit: a.DedupUnit, lease: min(time.Duration(a.LeaseMS)*time.Millisecond, time.Hour)}
	h.renew()
	return h, nil
}

// remoteHold is a Hold of a Remote.
type remoteHold struct {
	peer   *Remote
	id     string
	length int64
	unit   int
	lease  time.Duration

	stop     context.CancelFunc
	renewing sync.WaitGroup
}

// renew renews the hold until Release.
func (h *remoteHold) renew() {
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	h.renewing.Go(func() {
		tick := time.NewTicker(max(h.lease/4, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			limited, cancel := context.WithTimeout(ctx, h.lease)
			err := h.peer.Call(limited, http.MethodPost, h.path("renew"), nil, nil)
			cancel()
			if errors.Is(err, ErrGone) {
				return // its next use returns that
			}
		}
	})
}

func (h *remoteHold) path(what string) string { return Path + "holds/" + h.id + "/" + what }

// Length implements Hold.
func (h *remoteHold) Length() int64 { return h.length }

// Store implements Hold.
func (h *remoteHold) Store() [16]byte { return h.peer.store }

// DedupUnit implements Hold.
func (h *remoteHold) DedupUnit() int { return h.unit }

func query(off, length int64) string {
	return "?offset=" + strconv.FormatInt(off, 10) + "&length=" + strconv.FormatInt(length, 10)
}

// check returns ErrRange for a range that is not held.
func (h *remoteHold) check(off, length int64) error {
	if !(blockdev.Range{Offset: off, Length: length}).In(h.length) {
		return fmt.Errorf("%w: %d bytes at %d, %d are held", blockdev.ErrRange, length, off, h.length)
	}
	return nil
}

// Runs implements Hold.
func (h *remoteHold) Runs(ctx context.Context, off, length int64, fn func(backstore.Run) error) error {
	if err := h.check(off, length); err != nil {
		return err
	}
	return h.peer.frames(ctx, http.MethodGet, h.path("runs")+query(off, length), nil, func(r io.Reader) error {
		return new(runReader).read(r, []blockdev.Range{{Offset: off, Length: length}}, fn)
	})
}

// RunsOf implements Hold.
func (h *remoteHold) RunsOf(ctx context.Context, ranges []blockdev.Range, fn func(backstore.Run) error) error {
	var body bytes.Buffer
	if err := writeRanges(&body, ranges); err != nil {
		return err
	}
	return h.peer.frames(ctx, http.MethodPost, h.path("runs"), body.Bytes(), func(r io.Reader) error {
		return new(runReader).read(r, ranges, fn)
	})
}

// Diff implements Hold.
func (h *remoteHold) Diff(ctx context.Context, off, length int64, fn func(backstore.Difference) error) error {
	if err := h.check(off, length); err != nil {
		return err
	}
	return h.peer.frames(ctx, http.MethodGet, h.path("differences")+query(off, length), nil, func(r io.Reader) error {
		return readDifferences(r, off, length, fn)
	})
}

// ReadAt implements Hold.
func (h *remoteHold) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := h.check(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		part := p[:min(len(p), maxReadBytes)]
		if err := h.ReadRanges(ctx, part, []blockdev.Range{{Offset: off, Length: int64(len(part))}}); err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// ReadRanges implements Hold. One call is one request.
func (h *remoteHold) ReadRanges(ctx context.Context, p []byte, ranges []blockdev.Range) error {
	return h.read(ctx, ranges, false, func(r *bytesReader) error { return r.fill(p) })
}

// stream reads ranges, laid end to end, in one request, and calls each with what fills buf. Its
// errors are returned as they are. checked: each compares a checksum of each block before it
// uses the block, so that those of frames would be computed in vain.
func (h *remoteHold) stream(ctx context.Context, ranges []blockdev.Range, buf *[maxContent]byte, checked bool, each func(p []byte) error) (err error) {
	var failed error // by each
	err = h.read(ctx, ranges, checked, func(r *bytesReader) error {
		for left := sum(ranges); left > 0; {
			p := buf[:min(left, maxContent)]
			if err := r.fill(p); err != nil {
				return err
			}
			if failed = each(p); failed != nil {
				return errStopped
			}
			left -= int64(len(p))
		}
		return nil
	})
	return cmp.Or(failed, err)
}

// errStopped ends a request of whose answer no more is wanted.
var errStopped = errors.New("stopped")

// read requests the bytes of ranges, which fill reads. checked: as in stream.
func (h *remoteHold) read(ctx context.Context, ranges []blockdev.Range, checked bool, fill func(*bytesReader) error) error {
	var body bytes.Buffer
	if err := writeRanges(&body, ranges); err != nil {
		return err
	}
	began, length := time.Now(), sum(ranges)
	path := h.path("read")
	if checked {
		path += "?" + unsummed
	}
	err := h.peer.frames(ctx, http.MethodPost, path, body.Bytes(), func(r io.Reader) error {
		b, err := newBytesReader(r, length, checked)
		if err != nil {
			return err
		}
		if err := fill(b); err != nil {
			return err
		}
		return b.end()
	})
	if !errors.Is(err, errStopped) {
		h.peer.rate.add(int(length), time.Since(began), err)
	}
	if err == nil {
		h.peer.numbers.fetched.Add(length)
	}
	return err
}

// releaseTime bounds the request that ends a hold.
const releaseTime = 2 * time.Second

// Release implements Hold.
func (h *remoteHold) Release(ctx context.Context) error {
	h.stop()
	h.renewing.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	return h.peer.Call(ctx, http.MethodDelete, Path+"holds/"+h.id, nil, nil)
}
