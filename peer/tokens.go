package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/offload"
	"odx/quota"
	"odx/tokens"
)

const (
	// openTime bounds how long a peer may take to give a hold. A lost packet costs a second,
	// and Windows waits four for a command.
	openTime = 3 * time.Second
	// idleTime is how long a hold stays open for the next command with its token.
	idleTime = 2 * time.Second
	// maxIdle bounds the holds that stay open so.
	maxIdle = 64
)

// Tokens reaches the servers of tokens of other stores: the tokens.Remote of a server. Each
// use asks the server that made the token, whatever it has said before. Close ends it, when
// no use is left.
type Tokens struct {
	resolver Resolver
	memory   *quota.Quota

	// openTime and patience are the constants; tests may change them before tokens are used.
	openTime, patience time.Duration

	ending sync.WaitGroup  // releases of holds
	served served          // has a lock of its own
	lists  lists           // likewise
	base   context.Context // of requests in the background, which Close ends
	stop   context.CancelFunc

	mu   sync.Mutex // guards what follows, and the fields of shared that say so
	open map[sharedKey]*shared
	idle []*shared // the longest idle first
	done bool
}

// sharedKey is what uses have in common that share a hold.
type sharedKey struct {
	token     tokens.Token
	initiator string
}

// shared is a hold of a token for the commands of one requester that follow each other.
type shared struct {
	key  sharedKey
	peer Peer
	hold Hold

	// Guarded by Tokens.mu.
	users int
	timer *time.Timer // ends it while it is idle
	ended bool
}

// NewTokens returns the Remote of a server. The buffers of all copies together take at most
// memory bytes.
func NewTokens(r Resolver, memory int64) *Tokens {
	t := &Tokens{resolver: r, memory: quota.New(memory), openTime: openTime, patience: patience, open: make(map[sharedKey]*shared)}
	t.base, t.stop = context.WithCancel(context.Background())
	return t
}

// Close gives the holds that are idle back. No use may be open.
func (t *Tokens) Close() {
	t.mu.Lock()
	t.done = true
	for _, s := range slices.Clone(t.idle) {
		t.endLocked(s)
	}
	t.mu.Unlock()
	t.stop()
	t.ending.Wait()
}

// Server implements tokens.Remote.
func (t *Tokens) Server(store [16]byte) (string, bool) {
	p, ok := t.resolver.Resolve(store)
	if !ok {
		return "", false
	}
	return p.Name(), true
}

// find returns the peer that made a token.
func (t *Tokens) find(token *tokens.Token) (Peer, error) {
	p, ok := t.resolver.Resolve(token.Store())
	if !ok {
		return nil, tokens.ErrRemote
	}
	return p, nil
}

// Open implements tokens.Remote.
func (t *Tokens) Open(ctx context.Context, token *tokens.Token, who tokens.Requester) (offload.Foreign, error) {
	p, err := t.find(token)
	if err != nil {
		return nil, err
	}
	key := sharedKey{*token, who.Initiator}
	var got *shared
	err = t.ask(ctx, p, token, func(ctx context.Context) (err error) {
		got, err = t.share(ctx, p, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &snapshot{tokens: t, shared: got, client: who.Initiator}, nil
}

// share returns the hold of earlier commands, which the peer has confirmed for this one, or a
// new one.
func (t *Tokens) share(ctx context.Context, p Peer, key sharedKey) (*shared, error) {
	if s := t.reuse(p, key); s != nil {
		err := confirm(ctx, s)
		if err == nil {
			return s, nil
		}
		t.leave(s, !errors.Is(err, ErrGone))
		if !errors.Is(err, ErrGone) {
			return nil, err
		}
	}
	h, err := p.HoldToken(ctx, &key.token, tokens.Requester{Initiator: key.initiator})
	if err != nil {
		return nil, err
	}
	s := &shared{key: key, peer: p, hold: h, users: 1}
	t.served.note(&key.token, time.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[key] == nil {
		t.open[key] = s
	}
	return s, nil
}

// confirm asks the peer whether a hold may be used for another command.
func confirm(ctx context.Context, s *shared) error {
	h, ok := s.hold.(*remoteHold)
	if !ok {
		return ErrGone
	}
	_, err := h.peer.hold(ctx, v1.PeerHoldRequest{Token: s.key.token[:], Initiator: s.key.initiator, Hold: h.id})
	return err
}

// reuse returns the open hold of a key, as used; nil if there is none.
func (t *Tokens) reuse(p Peer, key sharedKey) *shared {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.open[key]
	if s == nil || s.peer != p {
		return nil
	}
	if s.users++; s.timer != nil {
		s.timer.Stop()
		s.timer = nil
		t.idle = slices.DeleteFunc(t.idle, func(x *shared) bool { return x == s })
	}
	return s
}

// leave ends a use of a hold. It stays open for a while if keep is true.
func (t *Tokens) leave(s *shared, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.users--
	if !keep && t.open[s.key] == s {
		delete(t.open, s.key) // the next command gets another one
	}
	switch {
	case s.users > 0:
	case t.open[s.key] != s || t.done:
		t.endLocked(s)
	default:
		if len(t.idle) >= maxIdle {
			t.endLocked(t.idle[0])
		}
		t.idle = append(t.idle, s)
		s.timer = time.AfterFunc(idleTime, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if s.timer != nil && s.users == 0 {
				t.endLocked(s)
			}
		})
	}
}

// endLocked gives a hold without users back, in the background. t.mu is held.
func (t *Tokens) endLocked(s *shared) {
	if s.ended {
		return
	}
	s.ended = true
	if t.open[s.key] == s {
		delete(t.open, s.key)
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	t.idle = slices.DeleteFunc(t.idle, func(x *shared) bool { return x == s })
	t.ending.Go(func() { _ = s.hold.Release(context.Background()) }) // its lease ends it otherwise
}

// Show implements tokens.Remote.
func (t *Tokens) Show(ctx context.Context, token *tokens.Token) (tokens.Info, error) {
	p, err := t.find(token)
	if err != nil {
		return tokens.Info{}, err
	}
	var a v1.PeerToken
	err = t.ask(ctx, p, token, func(ctx context.Context) error {
		return p.Call(ctx, http.MethodPost, Path+"tokens/show", requestFor(p, token, ""), &a)
	})
	if err != nil {
		return tokens.Info{}, err
	}
	info, err := infoOf(a)
	if err != nil {
		return tokens.Info{}, refusal(err)
	}
	info.Server = p.Name()
	copy(info.Management[:], token[:])
	return info, nil
}

func requestFor(p Peer, token *tokens.Token, initiator string) v1.PeerTokenRequest {
	store := p.Store()
	return v1.PeerTokenRequest{Store: fmt.Sprintf("%x", store[:]), Token: token[:], Initiator: initiator}
}

// Delete implements tokens.Remote.
func (t *Tokens) Delete(ctx context.Context, token *tokens.Token, who tokens.Requester) error {
	p, err := t.find(token)
	if err != nil {
		return err
	}
	first := true
	return t.ask(ctx, p, token, func(ctx context.Context) error {
		err := p.Call(ctx, http.MethodPost, Path+"tokens/delete", requestFor(p, token, who.Initiator), nil)
		if !first && errors.Is(err, tokens.ErrDeleted) {
			return nil // by the request before, whose answer was lost
		}
		first = false
		return err
	})
}

// snapshot is the bytes of a token of another server, for one use.
type snapshot struct {
	tokens *Tokens
	client string

	mu     sync.Mutex // guards shared and failed
	shared *shared
	failed bool // the hold is of no use to others
}

// hold returns the hold to use now.
func (s *snapshot) hold() Hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shared.hold
}

// ID implements offload.Snapshot. A snapshot of another server has no number here.
func (s *snapshot) ID() uint64 { return 0 }

// Length implements offload.Snapshot.
func (s *snapshot) Length() int64 { return s.hold().Length() }

// ReadAt implements offload.Snapshot.
func (s *snapshot) ReadAt(ctx context.Context, p []byte, off int64) error {
	return s.try(ctx, func(h Hold) (int64, error) { return 0, h.ReadAt(ctx, p, off) })
}

// Digest implements offload.Snapshot: the key of a digest is that of another store.
func (s *snapshot) Digest(context.Context, int64, int64) ([32]byte, error) {
	return [32]byte{}, fmt.Errorf("%w: digest of a token of another server", tokens.ErrUnsupportedType)
}

// MapTo implements offload.Foreign.
func (s *snapshot) MapTo(ctx context.Context, dst blockdev.Volume, off, src, length int64) (n int64, err error) {
	err = s.try(ctx, func(h Hold) (int64, error) {
		m, err := Fetch(ctx, h, src+n, dst, []blockdev.Range{{Offset: off + n, Length: length - n}}, FetchOptions{
			Memory: s.tokens.memory, Client: s.client, Adopt: true,
		})
		n += m
		return m, err
	})
	return n, err
}

// try calls fn, which returns how many bytes it has moved, with the hold: with another one if the
// peer has lost it, and again if the peer fails for a short time.
func (s *snapshot) try(ctx context.Context, fn func(Hold) (int64, error)) error {
	token, p := s.source()
	gone := false // also another hold
	once := func(h Hold) error {
		n, err := fn(h)
		if n > 0 || err == nil {
			s.tokens.served.note(token, time.Now())
			gone = false
		}
		return err
	}
	err := s.tokens.insist(ctx, ctx, token, func() error {
		h := s.hold()
		err := once(h)
		if gone || !errors.Is(err, ErrGone) {
			return err
		}
		if err := s.renew(ctx, h); err != nil {
			return err
		}
		gone = true
		return once(s.hold())
	})
	if ctx.Err() != nil {
		return err // the command says how far it came
	}
	return s.tokens.verdict(p, token, err)
}

// source returns the token, and its server.
func (s *snapshot) source() (*tokens.Token, Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &s.shared.key.token, s.shared.peer
}

// renew replaces a hold that is gone: the peer was restarted, or the network was away for
// longer than the lease. The peer decides about the token again. What is not the same at each
// use cannot go on.
func (s *snapshot) renew(ctx context.Context, lost Hold) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared.hold != lost {
		return nil // another call has done it
	}
	old := s.shared
	if !old.key.token.Type().Pinned() {
		return fmt.Errorf("%w: and the data of its token may have changed", ErrGone)
	}
	limited, cancel := context.WithTimeout(blockdev.Task(ctx), s.tokens.openTime)
	defer cancel()
	h, err := old.peer.HoldToken(limited, &old.key.token, tokens.Requester{Initiator: old.key.initiator})
	if err != nil {
		s.failed = true
		return err
	}
	s.failed = false
	s.shared = &shared{key: old.key, peer: old.peer, hold: h, users: 1}
	s.tokens.leave(old, false)
	s.tokens.adopt(s.shared)
	return nil
}

// adopt makes a hold the one of its key, if that has none.
func (t *Tokens) adopt(s *shared) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[s.key] == nil {
		t.open[s.key] = s
	}
}

// Release implements offload.Snapshot.
func (s *snapshot) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.leave(s.shared, !s.failed && s.shared.key.token.Type().Pinned())
}
