package peer

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
	"odx/quota"
	"odx/tokens"
)

// Limits bound what a Keeper gives. A zero field means the default.
type Limits struct {
	// Holds and HoldsPerPeer are how many there may be: 1024, 256.
	Holds, HoldsPerPeer int
	// Lease is how long a hold lives without being renewed: 30 s.
	Lease time.Duration
	// Memory bounds the buffers of all answers, in bytes: 16 MiB. An answer takes 1 MiB, and
	// waits for it; no peer gets more than half of what is left.
	Memory int64
	// AnswerTime bounds how long an answer may take: 30 s.
	AnswerTime time.Duration
}

func (l Limits) withDefaults() Limits {
	l.Holds = cmp.Or(l.Holds, 1024)
	l.HoldsPerPeer = cmp.Or(l.HoldsPerPeer, 256)
	l.Lease = cmp.Or(l.Lease, 30*time.Second)
	l.Memory = cmp.Or(l.Memory, 16<<20)
	l.AnswerTime = cmp.Or(l.AnswerTime, 30*time.Second)
	return l
}

// KeeperOptions are the arguments of NewKeeper.
type KeeperOptions struct {
	Store  *backstore.Store
	Tokens *tokens.Manager
	Limits Limits
	// Named, if set, returns snapshots by names that no volume has; ok is false for others.
	Named func(name string) (n *backstore.Snapshot, ok bool, err error)
	// Given, if set, is called for each hold that a peer has asked for, with what it is of.
	Given func(ctx context.Context, of string, err error)
	// Pace, if set, waits until a peer may read n bytes more.
	Pace func(ctx context.Context, peer string, n int64) error
}

// Keeper gives holds of a store to other servers. It is safe for concurrent use.
type Keeper struct {
	store  *backstore.Store
	tokens *tokens.Manager
	limits Limits
	memory *quota.Quota
	asked  func(ctx context.Context, of string, err error)
	pace   func(ctx context.Context, peer string, n int64) error
	named  func(name string) (n *backstore.Snapshot, ok bool, err error)

	// base is the context of all holds, which Close ends.
	base    context.Context
	stop    context.CancelFunc
	ending  sync.WaitGroup // the goroutine that ends leases
	wake    chan struct{}
	numbers counters

	mu    sync.Mutex // guards what follows, and the fields of held that say so
	holds map[holdID]*held
	count map[string]int // of holds, by peer
	// making are holds that are being taken, which count.
	making int
}

// holdID is the name of a hold; who has it may use the hold, if it is the same peer.
type holdID string

// held is a hold that was given.
type held struct {
	id   holdID
	peer string
	what string // for people
	data *backstore.Snapshot
	base *backstore.Snapshot // nil for none
	// token is the use of the token; nil for a volume.
	token *tokens.Reader
	began time.Time

	// Guarded by Keeper.mu.
	deadline time.Time // monotonic
	users    int       // requests that use it
	ended    bool
	read     int64 // bytes
}

// NewKeeper returns the keeper of a store. Close ends it, before the store is closed.
func NewKeeper(o KeeperOptions) *Keeper {
	k := &Keeper{
		store: o.Store, tokens: o.Tokens, asked: o.Given, limits: o.Limits.withDefaults(), pace: o.Pace, named: o.Named,
		holds: make(map[holdID]*held), count: make(map[string]int), wake: make(chan struct{}, 1),
	}
	k.memory = quota.New(k.limits.Memory)
	k.base, k.stop = context.WithCancel(context.Background())
	k.ending.Go(k.endLeases)
	return k
}

// Close ends all holds, and waits for requests that use them: their contexts have ended.
func (k *Keeper) Close() {
	k.stop()
	k.ending.Wait()
	for {
		k.mu.Lock()
		busy := 0
		for _, h := range k.holds {
			if !h.ended {
				k.endLocked(h)
			}
			busy += h.users
		}
		none := len(k.holds) == 0 && k.making == 0
		k.mu.Unlock()
		if none {
			return
		}
		<-k.wake
	}
}

// endLeases ends the holds whose lease is over.
func (k *Keeper) endLeases() {
	tick := time.NewTicker(max(k.limits.Lease/8, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-k.base.Done():
			return
		case <-tick.C:
		}
		k.mu.Lock()
		for _, h := range k.holds {
			if !h.ended && h.users == 0 && !time.Now().Before(h.deadline) {
				k.numbers.expired.Add(1)
				k.endLocked(h)
			}
		}
		k.mu.Unlock()
	}
}

// endLocked ends a hold: at once if no request uses it, otherwise when the last one ends.
// k.mu is held.
func (k *Keeper) endLocked(h *held) {
	h.ended = true
	if h.users > 0 {
		return
	}
	delete(k.holds, h.id)
	if k.count[h.peer]--; k.count[h.peer] == 0 {
		delete(k.count, h.peer)
	}
	h.release()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// release gives the pins of a hold back.
func (h *held) release() {
	if h.base != nil {
		h.base.Release()
	}
	if h.token != nil {
		h.token.Close()
		return
	}
	h.data.Release()
}

// use marks a hold as used by a request of a peer, which calls done.
func (k *Keeper) use(peer string, id holdID) (h *held, done func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h = k.holds[id]
	if h == nil || h.ended || h.peer != peer || h.users == 0 && !time.Now().Before(h.deadline) {
		return nil, nil, fmt.Errorf("%w: this server has no hold %.40q of the peer %s", ErrGone, string(id), peer)
	}
	h.users++
	return h, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		h.users--
		h.deadline = time.Now().Add(k.limits.Lease)
		if h.ended && h.users == 0 {
			k.endLocked(h)
		}
	}, nil
}

// reserve counts a hold that is going to be made.
func (k *Keeper) reserve(peer string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.base.Err() != nil:
		return blockdev.ErrClosed
	case len(k.holds)+k.making >= k.limits.Holds:
		return fmt.Errorf("%w: %d, those of all peers", ErrLimit, k.limits.Holds)
	case k.count[peer] >= k.limits.HoldsPerPeer:
		return fmt.Errorf("%w: the peer %s has %d", ErrLimit, peer, k.limits.HoldsPerPeer)
	}
	k.making++
	k.count[peer]++
	return nil
}

// keep adds a hold that was reserved, or gives it up with an error.
func (k *Keeper) keep(h *held, err error) (*held, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.making--
	if err == nil && k.base.Err() != nil {
		h.release()
		err = blockdev.ErrClosed
	}
	if err != nil {
		if k.count[h.peer]--; k.count[h.peer] == 0 {
			delete(k.count, h.peer)
		}
		select {
		case k.wake <- struct{}{}:
		default:
		}
		return nil, err
	}
	var id [16]byte
	rand.Read(id[:]) // never fails
	h.id, h.began = holdID(hex.EncodeToString(id[:])), time.Now()
	h.deadline = h.began.Add(k.limits.Lease)
	k.holds[h.id] = h
	k.numbers.given.Add(1)
	return h, nil
}

// errUnpinned: the data of the token cannot be held, because it is not in an extent store.
var errUnpinned = errors.New("the data of the token is not in the extent store")

// holdToken gives a hold of a token that this server made, to an initiator of a peer.
func (k *Keeper) holdToken(peer string, t *tokens.Token, initiator string) (*held, error) {
	if err := k.reserve(peer); err != nil {
		return nil, err
	}
	h := &held{peer: peer, what: "token " + t.ID().String()}
	var err error
	// The use of the token ends with the hold, not with the request.
	h.token, err = k.tokens.OpenReader(k.base, t, tokens.ReaderOptions{Requester: tokens.Requester{Initiator: initiator, Peer: peer}})
	if err != nil {
		return k.keep(h, err)
	}
	snapshot, err := h.token.Snapshot()
	if err == nil {
		var ok bool
		if h.data, ok = snapshot.(*backstore.Snapshot); !ok {
			err = fmt.Errorf("%w: %w", tokens.ErrUnsupportedType, errUnpinned)
		}
	}
	if err != nil {
		h.token.Close()
	}
	return k.keep(h, err)
}

// holdVolume gives a hold of a volume or of file:NAME as it is now.
func (k *Keeper) holdVolume(ctx context.Context, peer, name, base string) (*held, error) {
	if err := k.reserve(peer); err != nil {
		return nil, err
	}
	h := &held{peer: peer, what: name}
	var err error
	if h.data, err = k.whole(ctx, name); err == nil && base != "" {
		if h.base, err = k.whole(ctx, base); err != nil {
			h.data.Release()
		}
	}
	return k.keep(h, err)
}

// whole takes a transient snapshot of all of a volume or file, or finds one by its name.
func (k *Keeper) whole(ctx context.Context, name string) (*backstore.Snapshot, error) {
	if k.named != nil {
		if n, ok, err := k.named(name); ok {
			return n, err
		}
	}
	v, err := k.find(name)
	if err != nil {
		return nil, err
	}
	object, _ := offload.ExtentStore{Store: k.store}.Object(v) // it is the store's
	s, err := k.tokens.Engine().Transient(ctx, object.Snapshot, []blockdev.Range{{Length: v.Size()}})
	if err != nil {
		return nil, err
	}
	return s.(*backstore.Snapshot), nil
}

// find returns a volume, or file:NAME.
func (k *Keeper) find(name string) (*backstore.Volume, error) {
	if file, ok := strings.CutPrefix(name, offload.FilePrefix); ok {
		return k.store.File(file)
	}
	return k.store.Volume(name)
}

// again confirms that a hold of a token may still be used by an initiator: its next
// command. A token that stands for what a volume is at each use needs another hold.
func (k *Keeper) again(peer string, id holdID, t *tokens.Token, initiator string) (*held, error) {
	h, done, err := k.use(peer, id)
	if err != nil {
		return nil, err
	}
	defer done()
	if h.token == nil || !t.Type().Pinned() {
		return nil, fmt.Errorf("%w: another one is needed for each use", ErrGone)
	}
	return h, h.token.Confirm(t, tokens.Requester{Initiator: initiator, Peer: peer})
}

// release ends a hold of a peer; no error if it has ended.
func (k *Keeper) release(peer string, id holdID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.holds[id]; h != nil && !h.ended && h.peer == peer {
		k.endLocked(h)
	}
}

// HoldInfo describes a hold that was given to a peer.
type HoldInfo struct {
	// Peer is who has it, Of what it is of: "token ID", a volume, file:NAME.
	Peer, Of string
	// Length is what is held, Read what was read of it, in bytes.
	Length, Read int64
	Since        time.Time
	// Left is what is left of the lease; 0 while a request uses the hold.
	Left time.Duration
}

// Holds lists the holds of all peers.
func (k *Keeper) Holds() []HoldInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]HoldInfo, 0, len(k.holds))
	for _, h := range k.holds {
		i := HoldInfo{Peer: h.peer, Of: h.what, Length: h.data.Length(), Read: h.read, Since: h.began}
		if h.users == 0 {
			i.Left = max(time.Until(h.deadline), 0)
		}
		list = append(list, i)
	}
	return list
}
