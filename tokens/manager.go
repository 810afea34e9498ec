package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"odx/backstore"
	"odx/offload"
)

// Limits bounds what a Manager keeps. A zero field means the default.
type Limits struct {
	// Tokens is the number of live tokens: 100000 by default.
	Tokens int
	// TokensPerInitiator is how many of them one initiator may have made: no
	// limit by default. One more is refused.
	TokensPerInitiator int
	// MemoryBytes is about what live tokens may take in memory: 256 MiB.
	MemoryBytes int64
	// HeldBytes is how much data tokens may keep alive that nothing else refers to: no
	// limit by default. Every MeasurePeriod, 30 s by default, tokens that hold more are
	// cancelled.
	HeldBytes     int64
	MeasurePeriod time.Duration
	// UseRecordsPerSecond bounds how often the use of tokens is written to the store:
	// 100. A crash loses what is not written: a token counts as last used earlier than
	// it was.
	UseRecordsPerSecond int
	// Tombstones is the number of ended tokens of which the reason is kept: 10000.
	Tombstones int
	// TokenBytes is how much one token may represent: 1 TiB.
	TokenBytes int64
	// DigestBytes is how much a hash or checksum token may represent: 4 GiB. Its digest
	// takes some tenths of a second.
	DigestBytes int64
	// HashLifetime is how long a hash token is good: 24 hours. It has no inactivity
	// timeout, because the manager keeps no record of it.
	HashLifetime time.Duration
	// MinInactivity, DefaultInactivity and MaxInactivity bound the inactivity
	// timeout of a token: 1 s, 60 s, 600 s. A shorter one is raised to the minimum.
	MinInactivity, DefaultInactivity, MaxInactivity time.Duration
}

func (l *Limits) setDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.MinInactivity, time.Second},
		{&l.DefaultInactivity, time.Minute},
		{&l.MaxInactivity, 10 * time.Minute},
		{&l.MeasurePeriod, 30 * time.Second},
		{&l.HashLifetime, 24 * time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.Tokens == 0 {
		l.Tokens = 100_000
	}
	if l.Tombstones == 0 {
		l.Tombstones = 10_000
	}
	if l.DigestBytes == 0 {
		l.DigestBytes = 4 << 30
	}
	if l.MemoryBytes == 0 {
		l.MemoryBytes = 256 << 20
	}
	if l.UseRecordsPerSecond == 0 {
		l.UseRecordsPerSecond = 100
	}
	if l.TokenBytes == 0 {
		l.TokenBytes = 1 << 40
	}
}

func (l *Limits) check() error {
	if l.Tokens < 0 || l.TokensPerInitiator < 0 || l.MemoryBytes < 0 || l.HeldBytes < 0 || l.Tombstones < 0 ||
		l.TokenBytes < 0 || l.DigestBytes < 0 || l.HashLifetime < 0 || l.MeasurePeriod < 0 || l.UseRecordsPerSecond < 0 {
		return errors.New("token limits: a limit is negative")
	}
	if l.MinInactivity <= 0 || l.MinInactivity > l.DefaultInactivity || l.DefaultInactivity > l.MaxInactivity {
		return fmt.Errorf("token limits: inactivity timeouts %v (minimum), %v (default), %v (maximum) are not in order",
			l.MinInactivity, l.DefaultInactivity, l.MaxInactivity)
	}
	return nil
}

// Options are the arguments of Open.
type Options struct {
	Store Store
	// Engine copies for the manager; nil: Open makes one of Store.
	Engine *offload.Engine
	// Log receives failures of background work; nil discards them.
	Log    *logrus.Entry
	Limits Limits
	Policy Policy
}

// Manager keeps the tokens of one store. Its methods may be called
// concurrently.
type Manager struct {
	store  Store
	engine *offload.Engine
	log    *logrus.Entry
	sealer sealer

	// remote reaches the servers of tokens of other stores; nil for none.
	remote Remote

	// settings can be replaced while tokens are used.
	settings atomic.Pointer[settings]

	useRecords *rate.Limiter

	stop       context.CancelFunc
	background sync.WaitGroup
	wake       chan struct{} // wakes expire: an earlier deadline may exist

	// dropped is when a snapshot was last deleted, in Unix nanoseconds: for releaseTime
	// after it, what other tokens hold together with it is not measured.
	dropped atomic.Int64

	// measuring serializes measurements of what tokens hold and the cancellations that
	// follow. It is locked before every other lock.
	measuring sync.Mutex

	mu         sync.Mutex // guards what follows
	closed     bool
	live       map[ID]*entry
	reserved   int            // tokens being made, which count against the limits
	owned      map[string]int // tokens by their creator's initiator, those being made among them
	memory     int64          // of them
	idle       expiryHeap
	candidates evictionHeap
	ended      tombstones
	lost       map[ID]struct{} // tokens whose records are damaged
	stats      Stats
}

// Open returns the manager of a store with the tokens that the store holds. Tokens
// whose timeout has passed expire at once.
func Open(ctx context.Context, o Options) (*Manager, error) {
	o.Limits.setDefaults()
	if err := o.Limits.check(); err != nil {
		return nil, err
	}
	if err := o.Policy.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		o.Log = logrus.NewEntry(silent)
	}
	m := &Manager{
		store: o.Store, engine: o.Engine, log: o.Log,
		sealer:     sealer{store: o.Store.ID()},
		useRecords: rate.NewLimiter(rate.Limit(o.Limits.UseRecordsPerSecond), o.Limits.UseRecordsPerSecond),
		wake:       make(chan struct{}, 1),
		live:       make(map[ID]*entry),
		owned:      make(map[string]int),
		lost:       make(map[ID]struct{}),
		ended:      tombstones{max: o.Limits.Tombstones, byID: make(map[ID]tombstone)},
		stats:      Stats{CancelledFor: make(map[Cause]uint64), Refused: make(map[string]uint64)},
	}
	m.settings.Store(&settings{o.Limits, o.Policy})
	if m.engine == nil {
		var err error
		if m.engine, err = offload.Open(ctx, o.Store, o.Log); err != nil {
			return nil, err
		}
	}
	if err := m.loadKey(ctx); err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	if err := m.loadTombstones(ctx); err != nil {
		return nil, fmt.Errorf("load tombstones: %w", err)
	}
	if err := m.loadTokens(ctx); err != nil {
		return nil, fmt.Errorf("load tokens: %w", err)
	}
	if err := m.rewatch(ctx); err != nil {
		return nil, err
	}
	if err := m.EndOrphans(ctx); err != nil {
		return nil, fmt.Errorf("end tokens of deleted volumes: %w", err)
	}
	run, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.background.Go(func() { m.expire(run) })
	m.background.Go(func() { m.limitHeld(run) })
	m.store.OnFull(m.makeRoom)
	return m, nil
}

// Engine returns the copy engine of the manager.
func (m *Manager) Engine() *offload.Engine { return m.engine }

// Close stops the manager; the store keeps the tokens. No other call of the manager may
// be running.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	live := make([]*entry, 0, len(m.live))
	for _, e := range m.live {
		live = append(live, e)
	}
	m.mu.Unlock()
	m.stop()
	m.background.Wait()
	var errs []error
	for _, e := range live {
		errs = append(errs, m.saveUse(context.Background(), e, 0))
	}
	return errors.Join(errs...)
}

// Limits returns the limits in force.
func (m *Manager) Limits() Limits { return *m.limits() }

// settings are what decides about tokens.
type settings struct {
	limits Limits
	policy Policy
}

func (m *Manager) limits() *Limits { return &m.settings.Load().limits }
func (m *Manager) policy() *Policy { return &m.settings.Load().policy }

// Reconfigure replaces limits and policy; the number of tombstones and the period of
// measurements stay. Tokens that are there keep their timeouts, priorities and access;
// where there are more than the limits allow, the next token that is made ends some, as the
// policy says. After an error, nothing has changed.
func (m *Manager) Reconfigure(l Limits, p Policy) error {
	now := m.limits()
	l.Tombstones, l.MeasurePeriod = now.Tombstones, now.MeasurePeriod
	l.setDefaults()
	if err := l.check(); err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return err
	}
	m.settings.Store(&settings{l, p})
	m.useRecords.SetBurst(l.UseRecordsPerSecond)
	m.useRecords.SetLimit(rate.Limit(l.UseRecordsPerSecond))
	return nil
}

// Info describes a live token.
type Info struct {
	ID          ID
	Type        RODType
	Length      int64 // bytes represented
	BlockLength int   // bytes a logical block of the source
	Creator     Creator
	Created     time.Time
	LastUsed    time.Time
	Expires     time.Time // zero while the token is in use, and for one that does not expire
	Inactivity  time.Duration
	Uses        uint64
	InUse       int // operations that use it now
	Priority    int
	Access      Access
	// Management is the ROD management token (SPC-4 r37 6.31).
	Management [ManagementLength]byte
	// Server is the server that made the token, if it is another one. Of such a token a
	// Handle knows only ID, Type and Management, and not yet whether it is genuine.
	Server string
}

// Lookup describes the token t: see Resolve and Handle.Info.
func (m *Manager) Lookup(t *Token) (Info, error) {
	h, err := m.Resolve(t)
	if err != nil {
		return Info{}, err
	}
	return h.Info(), nil
}

// Find describes the live token with an identifier; ErrUnknown if there is none.
func (m *Manager) Find(id ID) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.live[id]
	if !ok {
		return Info{}, m.endError(id)
	}
	return e.info(), nil
}

// List describes every live token, the oldest first.
func (m *Manager) List() []Info {
	m.mu.Lock()
	list := make([]Info, 0, len(m.live))
	for _, e := range m.live {
		list = append(list, e.info())
	}
	m.mu.Unlock()
	sort.Slice(list, func(i, j int) bool {
		if !list[i].Created.Equal(list[j].Created) {
			return list[i].Created.Before(list[j].Created)
		}
		return list[i].ID < list[j].ID
	})
	return list
}

// ListBytes returns about what List and ListAway take, in bytes.
func (m *Manager) ListBytes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.live)
	if m.remote != nil {
		n += MaxListed
	}
	return n * int(unsafe.Sizeof(Info{}))
}

// Delete ends the token with an identifier for reason, durably. The policy says whether
// operations that use it finish, and whether Deleted is a hint only; new operations are
// refused with the reason's error.
func (m *Manager) Delete(ctx context.Context, id ID, reason Reason) error {
	if reason.err() == nil {
		return fmt.Errorf("delete token %v: %v is not a reason", id, reason)
	}
	m.mu.Lock()
	e, ok := m.live[id]
	if !ok {
		err := m.endError(id)
		m.mu.Unlock()
		return fmt.Errorf("delete token %v: %w", id, err)
	}
	m.mu.Unlock()
	return m.delete(ctx, e, reason)
}

// delete ends a token for a user or an administrator, durably, unless the deletion is a
// hint only.
func (m *Manager) delete(ctx context.Context, e *entry, reason Reason) error {
	if e.located != nil {
		if err := m.endHash(ctx, e.id, reason); err != nil {
			return err
		}
		return m.store.Flush(ctx)
	}
	if reason == Deleted && m.policy().Deletion == DeletionHint {
		m.hintDeletion(e)
		return nil
	}
	if err := m.end(ctx, e, reason, 0); err != nil {
		return err
	}
	return m.store.Flush(ctx)
}

// find returns the live entry of t, or why there is none.
func (m *Manager) find(t *Token) (*entry, error) {
	if err := m.sealer.check(t); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	switch t.Type() {
	case RODTypeHash:
		return m.findHash(t)
	case RODTypeChecksum:
		return nil, fmt.Errorf("%w: a checksum stands for no data", ErrUnsupportedType)
	}
	e, ok := m.live[t.ID()]
	if !ok {
		return nil, m.endError(t.ID())
	}
	if !e.owns(t) {
		return nil, ErrUnknown
	}
	if e.ended != 0 {
		return nil, e.ended.err()
	}
	return e, nil
}

// endError returns why a token that is not live ended. m.mu is held.
func (m *Manager) endError(id ID) error {
	if t, ok := m.ended.byID[id]; ok {
		if t.Cause != 0 {
			return fmt.Errorf("%w: %v", t.Reason.err(), t.Cause)
		}
		return t.Reason.err()
	}
	if _, ok := m.lost[id]; ok {
		return fmt.Errorf("%w: its record in the store is damaged", ErrUnknown)
	}
	return ErrUnknown
}

// loadKey reads the key that seals this store's tokens, and creates one when the store
// has none. Without its key no token of the store can be verified: if it is lost, all of
// them are refused, and new ones get a new key.
func (m *Manager) loadKey(ctx context.Context) error {
	key, err := m.store.GetRecord([]byte(sealKey))
	if err == nil {
		if len(key) != len(m.sealer.key) {
			return fmt.Errorf("%w: %d bytes", errRecord, len(key))
		}
		copy(m.sealer.key[:], key)
		return nil
	}
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		m.log.WithError(err).Error("the key of the store's tokens is lost: tokens that were made before are refused, and what they hold stays until they expire")
	} else if !errors.Is(err, backstore.ErrNotFound) {
		return err
	}
	rand.Read(m.sealer.key[:])
	if err := m.store.PutRecords(ctx, backstore.Record{Key: []byte(sealKey), Value: m.sealer.key[:]}); err != nil {
		return err
	}
	return m.store.Flush(ctx)
}
