package tokens

import (
	"context"
	"fmt"

	"odx/offload"
)

// Remote reaches the servers that made tokens which are not of this store. Each decides about
// its tokens; errors are those that refuse a token. Where a server does not answer, they wrap
// ErrRemote.
type Remote interface {
	// Server returns the name of the server of a store; false if no configuration names it.
	// It sends no request.
	Server(store [16]byte) (name string, ok bool)
	// Open opens the bytes of a token for one use by a requester of this server, within the
	// time of ctx. Release ends the use. The snapshot stays readable when ctx has ended.
	Open(ctx context.Context, t *Token, who Requester) (offload.Foreign, error)
	// Show describes a token.
	Show(ctx context.Context, t *Token) (Info, error)
	// List returns the live tokens that who, an initiator, has made on other servers, with their
	// management tokens, at most MaxListed. It does not wait for a server that does not answer.
	List(ctx context.Context, who Requester) []Info
	// Delete deletes a token for a requester of this server (DEL_TKN).
	Delete(ctx context.Context, t *Token, who Requester) error
}

// MaxListed bounds the tokens of other servers in a list.
const MaxListed = 1024

// ListAway returns the tokens that who, an initiator, has made on other servers.
func (m *Manager) ListAway(ctx context.Context, who Requester) []Info {
	if m.remote == nil || who.Initiator == "" {
		return nil
	}
	return m.remote.List(ctx, who)
}

// SetRemote has tokens of other stores resolved by r; nil for none. It belongs to the set-up.
func (m *Manager) SetRemote(r Remote) { m.remote = r }

// Describe describes the token t as Lookup does; if it is of another server, as that says.
func (m *Manager) Describe(ctx context.Context, t *Token) (Info, error) {
	h, err := m.Resolve(t)
	if err != nil {
		return Info{}, err
	}
	return h.Describe(ctx)
}

// Describe is Manager.Describe.
func (h *Handle) Describe(ctx context.Context) (Info, error) {
	if h.away == nil {
		return h.Info(), nil
	}
	info, err := h.away.remote.Show(ctx, h.away.token)
	if err != nil {
		h.m.refused(err)
	}
	return info, err
}

// away is a token of another server.
type away struct {
	remote Remote
	token  *Token
	server string
}

// resolveAway returns the token t, which is not of this store, as one of another server.
// Nothing is known of it but what its bytes say, which that server can confirm.
func (m *Manager) resolveAway(t *Token) (*Handle, error) {
	if m.remote == nil {
		return nil, ErrRemote
	}
	name, ok := m.remote.Server(t.Store())
	switch {
	case !ok:
		return nil, ErrRemote
	case t.Type() == RODTypeChecksum:
		return nil, fmt.Errorf("%w: a checksum stands for no data", ErrUnsupportedType)
	}
	token := *t
	return &Handle{m: m, away: &away{m.remote, &token, name}}, nil
}

// info is Handle.Info: what the bytes of the token say.
func (a *away) info() Info {
	i := Info{ID: a.token.ID(), Type: a.token.Type(), Server: a.server}
	copy(i.Management[:], a.token[:])
	return i
}

// open opens the token for a use.
func (a *away) open(ctx context.Context, who Requester) (*use, error) {
	s, err := a.remote.Open(ctx, a.token, who)
	if err != nil {
		return nil, err
	}
	return &use{snapshot: s, ctx: ctx, close: func(error) {}}, nil
}

// DeleteFor deletes the token t for a requester who may use it (DEL_TKN).
func (m *Manager) DeleteFor(ctx context.Context, t *Token, who Requester) error {
	h, err := m.resolve(t)
	if err != nil {
		return fmt.Errorf("delete token: %w", err)
	}
	return h.DeleteFor(ctx, who)
}

// DeleteFor is Manager.DeleteFor.
func (h *Handle) DeleteFor(ctx context.Context, who Requester) error {
	switch {
	case h.away != nil:
		return h.away.remote.Delete(ctx, h.away.token, who)
	case h.entry != nil:
		if err := h.m.mayUse(h.entry, who); err != nil {
			return fmt.Errorf("delete token: %w", err)
		}
	}
	return h.Delete(ctx, Deleted)
}

// mayUse returns why a requester cannot use the token of an entry.
func (m *Manager) mayUse(e *entry, who Requester) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(e); err != nil {
		return err
	}
	if e.located != nil {
		return m.admitHash(e.located, who)
	}
	return m.admit(&e.rec, who)
}

// Snapshot returns the pinned bytes of the token, for as long as the reader is open. The
// error is why the reader has ended before: its context, or, where policy ends copies with
// their token, the token's.
func (r *Reader) Snapshot() (offload.Snapshot, error) {
	if r.use == nil {
		return nil, fmt.Errorf("%w: the block device zero token has no snapshot", ErrUnsupportedType)
	}
	if err := r.use.ctx.Err(); err != nil {
		return nil, r.use.err(err)
	}
	return r.use.snapshot, nil
}

// Confirm returns why a requester cannot use the token t any more, of which the reader is.
// It counts as a use of it.
func (r *Reader) Confirm(t *Token, who Requester) error {
	h, err := r.m.Resolve(t)
	if err != nil {
		return err
	}
	if r.use == nil || h.entry == nil || h.entry.id != r.use.entry.id {
		return fmt.Errorf("%w: another token", ErrUnknown)
	}
	if err := r.m.mayUse(h.entry, who); err != nil {
		r.m.refused(err)
		return err
	}
	r.m.mu.Lock()
	r.m.stats.Uses++
	r.use.entry.rec.Uses++
	r.m.mu.Unlock()
	return nil
}
