package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
)

// Limits bounds what a Manager keeps and what it does in one call. A zero
// field means the default.
type Limits struct {
	// Tokens is the number of live tokens: 100000 by default.
	Tokens int
	// Tombstones is the number of dead tokens whose fate is remembered: 10000.
	Tombstones int
	// TokenBytes is how much one token may represent: 1 TiB.
	TokenBytes int64
	// MinInactivity, DefaultInactivity and MaxInactivity bound the inactivity
	// timeout of a token: 1 s, 60 s, 600 s. A shorter one is raised to the minimum.
	MinInactivity, DefaultInactivity, MaxInactivity time.Duration
	// CallTime is how long a call goes on starting work: 400 ms. A call that
	// reaches it returns what it did; the caller calls again.
	CallTime time.Duration
}

func (l *Limits) setDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.MinInactivity, time.Second},
		{&l.DefaultInactivity, time.Minute},
		{&l.MaxInactivity, 10 * time.Minute},
		{&l.CallTime, 400 * time.Millisecond},
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
	if l.TokenBytes == 0 {
		l.TokenBytes = 1 << 40
	}
}

func (l *Limits) check() error {
	if l.Tokens < 0 || l.Tombstones < 0 || l.TokenBytes < 0 || l.CallTime < 0 {
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
	// Log receives what goes wrong where no caller is told; nil discards it.
	Log    *logrus.Entry
	Limits Limits
}

// Manager keeps the tokens of one store. Its methods may be called
// concurrently.
type Manager struct {
	store  Store
	log    *logrus.Entry
	limits Limits
	sealer sealer

	stop    context.CancelFunc
	expirer sync.WaitGroup
	wake    chan struct{} // tells the expirer that an earlier deadline may exist

	mu       sync.Mutex // guards what follows
	closed   bool
	live     map[ID]*entry
	reserved int // tokens being made, which count against the limit
	idle     deadlines
	dead     tombstones
	stats    Stats
}

// Stats counts tokens. The counters begin at zero when the manager is opened.
type Stats struct {
	Live, Tombstones int
	// PinnedBytes is the sum of the bytes that live tokens represent.
	PinnedBytes int64

	Created, Uses, Expired, Cancelled, Revoked, Deleted uint64
}

// Open returns the manager of a store with the tokens that the store holds.
// Tokens whose time passed meanwhile expire at once.
func Open(ctx context.Context, o Options) (*Manager, error) {
	o.Limits.setDefaults()
	if err := o.Limits.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		o.Log = logrus.NewEntry(silent)
	}
	m := &Manager{
		store: o.Store, log: o.Log, limits: o.Limits,
		sealer: sealer{store: o.Store.ID()},
		wake:   make(chan struct{}, 1),
		live:   make(map[ID]*entry),
		dead:   tombstones{max: o.Limits.Tombstones, byID: make(map[ID]tombstone)},
	}
	if err := m.loadKey(ctx); err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	if err := o.Store.DeleteStages(ctx, stagePrefix); err != nil {
		return nil, fmt.Errorf("remove what an interrupted copy left: %w", err)
	}
	if err := m.deleteUses(ctx); err != nil {
		return nil, fmt.Errorf("remove what interrupted copies left: %w", err)
	}
	if err := m.loadTombstones(ctx); err != nil {
		return nil, fmt.Errorf("load dead tokens: %w", err)
	}
	if err := m.loadTokens(ctx); err != nil {
		return nil, fmt.Errorf("load tokens: %w", err)
	}
	if err := m.rewatch(ctx); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.expirer.Go(func() { m.expire(run) })
	return m, nil
}

// Close ends the manager, but no token: the store keeps them. No call of the
// manager may be running.
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
	m.expirer.Wait()
	var errs []error
	for _, e := range live {
		errs = append(errs, m.saveUse(context.Background(), e, 0))
	}
	return errors.Join(errs...)
}

// Limits returns the limits in force.
func (m *Manager) Limits() Limits { return m.limits }

// Shares reports whether v is a volume of the manager's store, so that copying
// from and to it moves no bytes where the alignment allows it.
func (m *Manager) Shares(v Volume) bool {
	_, ok := m.store.AddressSpace(v)
	return ok
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
	InUse       int // operations running now
	Priority    int
	// Management is the ROD management token (SPC-4 r37 6.31).
	Management [ManagementLength]byte
}

// Lookup describes the token t, or says why it cannot be used: one of the
// errors that refuse a token. The block device zero token has no record, and
// only its Type is set.
func (m *Manager) Lookup(t *Token) (Info, error) {
	if err := t.checkLength(); err != nil {
		return Info{}, err
	}
	if t.isZero() {
		return Info{Type: RODTypeBlockDeviceZero}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.find(t)
	if err != nil {
		return Info{}, err
	}
	return e.info(), nil
}

// Find describes the live token with an identifier; ErrUnknown if there is none.
func (m *Manager) Find(id ID) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.live[id]
	if !ok {
		return Info{}, m.fate(id)
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

// Stats returns the counts of now.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Live, s.Tombstones = len(m.live), len(m.dead.byID)
	return s
}

// Delete ends the token with an identifier for reason, durably. Operations that
// use it finish; new ones are refused with the reason's error.
func (m *Manager) Delete(ctx context.Context, id ID, reason Reason) error {
	if reason.err() == nil {
		return fmt.Errorf("delete token %v: %v is not a reason", id, reason)
	}
	m.mu.Lock()
	e, ok := m.live[id]
	if !ok {
		err := m.fate(id)
		m.mu.Unlock()
		return fmt.Errorf("delete token %v: %w", id, err)
	}
	m.mu.Unlock()
	if err := m.kill(ctx, e, reason); err != nil {
		return err
	}
	return m.store.Flush(ctx)
}

// find returns the live entry of t, or why there is none. m.mu is held.
func (m *Manager) find(t *Token) (*entry, error) {
	if m.closed {
		return nil, ErrClosed
	}
	if err := m.sealer.check(t); err != nil {
		return nil, err
	}
	e, ok := m.live[t.ID()]
	if !ok {
		return nil, m.fate(t.ID())
	}
	if !e.owns(t) {
		return nil, ErrUnknown
	}
	if e.dying != 0 {
		return nil, e.dying.err()
	}
	return e, nil
}

// fate returns the error that tells what became of a token that is not live.
// m.mu is held.
func (m *Manager) fate(id ID) error {
	if t, ok := m.dead.byID[id]; ok {
		return t.Reason.err()
	}
	return ErrUnknown
}

// loadKey reads the key that seals this store's tokens, and makes it when the
// store has none.
func (m *Manager) loadKey(ctx context.Context) error {
	key, err := m.store.GetRecord([]byte(sealKey))
	if err == nil {
		if len(key) != len(m.sealer.key) {
			return fmt.Errorf("%w: %d bytes", errRecord, len(key))
		}
		copy(m.sealer.key[:], key)
		return nil
	}
	if !errors.Is(err, backstore.ErrNotFound) {
		return err
	}
	rand.Read(m.sealer.key[:])
	if err := m.store.PutRecords(ctx, backstore.Record{Key: []byte(sealKey), Value: m.sealer.key[:]}); err != nil {
		return err
	}
	return m.store.Flush(ctx)
}
