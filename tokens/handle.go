package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/blockdev"
	"odx/offload"
)

// Handle is a token that was found genuine and usable once: a caller that inspects it
// and then uses it does not verify it twice. It pins nothing; each use checks that the
// token still lives.
type Handle struct {
	m     *Manager
	entry *entry // nil: the block device zero token, or one of another server
	away  *away  // nil: a token of this store
	// management is that of a hash token, whose entry has none.
	management [ManagementLength]byte
}

// Resolve verifies the token t and looks it up. Its errors are those that refuse a
// token.
func (m *Manager) Resolve(t *Token) (*Handle, error) {
	h, err := m.resolve(t)
	if err != nil {
		m.refused(err)
	}
	return h, err
}

func (m *Manager) resolve(t *Token) (*Handle, error) {
	if err := t.checkLength(); err != nil {
		return nil, err
	}
	if t.isZero() {
		return &Handle{m: m}, nil
	}
	e, err := m.find(t)
	if err == ErrRemote {
		return m.resolveAway(t)
	}
	if err != nil {
		return nil, err
	}
	return &Handle{m: m, entry: e, management: [ManagementLength]byte(t[:ManagementLength])}, nil
}

// Info describes the token. The block device zero token has no record, and only its
// Type is set. Nor has a hash token: its creator is unknown except for the volume, and
// only a use finds out whether its bytes still exist.
func (h *Handle) Info() Info {
	e := h.entry
	if h.away != nil {
		return h.away.info()
	}
	if e == nil {
		return Info{Type: RODTypeBlockDeviceZero}
	}
	h.m.mu.Lock()
	i := e.info()
	h.m.mu.Unlock()
	if e.located != nil {
		if object, err := h.m.store.ObjectByID(e.located.volume); err == nil {
			i.Creator.Volume = object.Name()
		}
		i.Management = h.management
	}
	return i
}

// OffloadWrite is Manager.OffloadWrite.
func (h *Handle) OffloadWrite(ctx context.Context, offset int64, dst offload.Destination, ranges []blockdev.Range, o WriteOptions) (int64, error) {
	n, err := h.write(ctx, offset, dst, ranges, o)
	if err != nil && n == 0 {
		h.m.refused(err)
	}
	return n, err
}

func (h *Handle) write(ctx context.Context, offset int64, dst offload.Destination, ranges []blockdev.Range, o WriteOptions) (int64, error) {
	if _, err := blockdev.Sum(ranges, dst.Volume.Size(), dst.BlockLength); err != nil {
		return 0, err
	}
	if h.entry == nil && h.away == nil {
		return offload.Zero(ctx, dst, ranges, o.Moved)
	}
	u, err := h.acquire(ctx, o.Requester)
	if err != nil {
		return 0, err
	}
	defer h.m.release(ctx, u)
	if offset < 0 || offset >= u.snapshot.Length() {
		return 0, fmt.Errorf("%w: offset %d, token of %d bytes", ErrOffset, offset, u.snapshot.Length())
	}
	n, stopped, err := h.m.engine.Write(u.ctx, u.snapshot, offset, dst, ranges, o.Moved)
	if err != nil || o.Completion == KeepToken || stopped {
		return n, u.err(err)
	}
	if h.away != nil {
		return n, h.away.remote.Delete(ctx, h.away.token, o.Requester)
	}
	if err := h.m.delete(ctx, u.entry, Deleted); err != nil && !errors.Is(err, errEnded) {
		return n, err
	}
	return n, nil
}

// acquire opens the data of a token, other than the block device zero token, for a use.
func (h *Handle) acquire(ctx context.Context, who Requester) (*use, error) {
	if h.away != nil {
		return h.away.open(ctx, who)
	}
	return h.m.acquire(ctx, h.entry, who)
}

// OpenReader is Manager.OpenReader.
func (h *Handle) OpenReader(ctx context.Context, o ReaderOptions) (*Reader, error) {
	r := &Reader{m: h.m, pastEnd: o.PastEnd}
	if h.entry == nil && h.away == nil {
		return r, nil
	}
	var err error
	if r.use, err = h.acquire(ctx, o.Requester); err != nil {
		h.m.refused(err)
		return nil, err
	}
	return r, nil
}

// Delete is Manager.DeleteToken.
func (h *Handle) Delete(ctx context.Context, reason Reason) error {
	err := fmt.Errorf("%w: the block device zero token does not end", ErrUnsupportedType)
	switch {
	case reason.err() == nil:
		return fmt.Errorf("delete token: %v is not a reason", reason)
	case h.away != nil:
		return fmt.Errorf("delete token: %w: ask the server that made it, %s", ErrRemote, h.away.server)
	case h.entry != nil:
		h.m.mu.Lock()
		err = h.m.usable(h.entry)
		h.m.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("delete token: %w", err)
	}
	return h.m.delete(ctx, h.entry, reason)
}

// usable returns why the token of an entry that was looked up earlier can no longer be
// used, nil if it can. m.mu is held.
func (m *Manager) usable(e *entry) error {
	switch {
	case m.closed:
		return ErrClosed
	case e.located == nil && m.live[e.id] != e:
		return m.endError(e.id)
	case e.located == nil && e.ended != 0:
		return e.ended.err()
	case e.located == nil:
		return nil
	}
	if ts, ok := m.ended.byID[e.id]; ok {
		return ts.Reason.err()
	}
	if !time.Now().Before(e.located.expires) {
		return ErrExpired
	}
	return nil
}
