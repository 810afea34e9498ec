package rados

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Twin is a pool in memory, for tests. What a client sends arrives later: when it waits for
// it, or for something after it on the same object, or when the test lets it (Deliver).
type Twin struct {
	now func() time.Duration

	mu      sync.Mutex // guards what follows, and the clients
	objects map[string]*object
	locks   map[string]lock
	clients []*Client
	hook    func(object string, c *Change) error
	refused int
}

type object struct {
	data  []byte
	epoch uint64
	rows  map[string][]byte
}

type lock struct {
	cookie  string
	expires time.Duration
}

// NewTwin returns an empty pool, whose locks end by the clock now.
func NewTwin(now func() time.Duration) *Twin {
	return &Twin{now: now, objects: make(map[string]*object), locks: make(map[string]lock)}
}

// SetHook has fn called before each change of a client is sent. It may return an error, which
// the change has then, without effect.
func (t *Twin) SetHook(fn func(object string, c *Change) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hook = fn
}

// Refused returns how many changes failed a comparison.
func (t *Twin) Refused() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused
}

// Client returns a new client.
func (t *Twin) Client() *Client {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &Client{t: t}
	t.clients = append(t.clients, c)
	return c
}

// CrashClone returns a pool as it is when all clients end now: of what they have sent to an
// object a beginning has arrived.
func (t *Twin) CrashClone(rng *rand.Rand) *Twin {
	t.mu.Lock()
	defer t.mu.Unlock()
	clone := NewTwin(t.now)
	for _, name := range slices.Sorted(maps.Keys(t.objects)) {
		o := t.objects[name]
		clone.objects[name] = &object{slices.Clone(o.data), o.epoch, maps.Clone(o.rows)}
	}
	for _, c := range t.clients {
		stuck := map[string]bool{}
		for _, one := range c.sent {
			if stuck[one.object] = stuck[one.object] || rng.IntN(3) == 0; !stuck[one.object] {
				_ = clone.apply(one.object, one.change)
			}
		}
	}
	return clone
}

// apply does a change. t.mu is held, or no other goroutine has t.
func (t *Twin) apply(name string, c *Change) error {
	o := t.objects[name]
	if c.Create && o != nil {
		return fs.ErrExist
	}
	if !c.Create && o == nil {
		return fs.ErrNotExist
	}
	if o == nil {
		o = &object{rows: make(map[string][]byte)}
	}
	if c.Compare == Equal && o.epoch != c.Epoch || c.Compare == NoLater && o.epoch > c.Epoch {
		t.refused++
		return fmt.Errorf("%w: epoch %d of %s, the change has %d", ErrRefused, o.epoch, name, c.Epoch)
	}
	t.objects[name] = o
	if c.SetEpoch != 0 {
		o.epoch = c.SetEpoch
	}
	if c.Truncate {
		o.data = resized(o.data, c.Length)
	}
	if len(c.Data) > 0 {
		if end := c.Off + int64(len(c.Data)); end > int64(len(o.data)) {
			o.data = resized(o.data, end)
		}
		copy(o.data[c.Off:], c.Data)
	}
	maps.Copy(o.rows, c.Set)
	for _, key := range c.Unset {
		delete(o.rows, key)
	}
	if c.Remove {
		delete(t.objects, name)
	}
	return nil
}

func resized(p []byte, n int64) []byte {
	if n <= int64(len(p)) {
		return p[:n:n]
	}
	return append(p, make([]byte, n-int64(len(p)))...)
}

// Client is a Pool on a Twin.
type Client struct {
	t    *Twin
	sent []*call // not arrived; guarded by t.mu
	cut  bool    // nothing arrives, and nothing is answered
}

type call struct {
	c       *Client
	object  string
	change  *Change
	arrived bool
	err     error
}

// Cut has nothing more arrive of what the client sends: its waits end with ErrUnknown.
func (c *Client) Cut() {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.cut = true
}

// Deliver lets all arrive that the client has sent, also before a cut.
func (c *Client) Deliver() {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.arrive(func(*call) bool { return true })
}

// arrive applies what was sent and is chosen, in order. t.mu is held.
func (c *Client) arrive(chosen func(*call) bool) {
	left := c.sent[:0]
	for _, one := range c.sent {
		if chosen(one) {
			one.err, one.arrived = c.t.apply(one.object, one.change), true
		} else {
			left = append(left, one)
		}
	}
	c.sent = left
}

// Begin implements Pool.
func (c *Client) Begin(name string, ch *Change) Pending {
	copied := *ch
	copied.Data, copied.Set, copied.Unset = slices.Clone(ch.Data), maps.Clone(ch.Set), slices.Clone(ch.Unset)
	one := &call{c: c, object: name, change: &copied}
	c.t.mu.Lock()
	hook := c.t.hook
	c.t.mu.Unlock()
	if hook != nil {
		if err := hook(name, &copied); err != nil {
			one.err, one.arrived = err, true
			return one
		}
	}
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.sent = append(c.sent, one)
	return one
}

// Wait implements Pending.
func (one *call) Wait() error {
	c := one.c
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if !one.arrived {
		if c.cut {
			return ErrUnknown
		}
		c.flush(one.object)
	}
	return one.err
}

// flush lets all arrive that was sent to an object. t.mu is held.
func (c *Client) flush(name string) {
	if !c.cut {
		c.arrive(func(one *call) bool { return one.object == name })
	}
}

// find returns an object, for reading. t.mu is held.
func (c *Client) find(name string) (*object, error) {
	if c.cut {
		return nil, ErrUnknown
	}
	c.flush(name)
	o := c.t.objects[name]
	if o == nil {
		return nil, fs.ErrNotExist
	}
	return o, nil
}

// Read implements Pool.
func (c *Client) Read(name string, p []byte, off int64) (int, error) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	o, err := c.find(name)
	if err != nil || off >= int64(len(o.data)) {
		return 0, err
	}
	return copy(p, o.data[off:]), nil
}

// Length implements Pool.
func (c *Client) Length(name string) (int64, error) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	o, err := c.find(name)
	if err != nil {
		return 0, err
	}
	return int64(len(o.data)), nil
}

// Rows implements Pool.
func (c *Client) Rows(name string) (map[string][]byte, uint64, error) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	o, err := c.find(name)
	if err != nil {
		return nil, 0, err
	}
	return maps.Clone(o.rows), o.epoch, nil
}

// Lock implements Pool.
func (c *Client) Lock(name, cookie string, lease time.Duration, renew bool) error {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.cut {
		return ErrUnknown
	}
	held, ok := c.t.locks[name]
	ok = ok && c.t.now() < held.expires
	switch {
	case renew && (!ok || held.cookie != cookie):
		return fs.ErrNotExist
	case !renew && ok:
		return ErrBusy
	}
	if c.t.objects[name] == nil {
		c.t.objects[name] = &object{rows: make(map[string][]byte)}
	}
	c.t.locks[name] = lock{cookie, c.t.now() + lease}
	return nil
}

// Unlock implements Pool.
func (c *Client) Unlock(name, cookie string) error {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.cut {
		return ErrUnknown
	}
	if c.t.locks[name].cookie == cookie {
		delete(c.t.locks, name)
	}
	return nil
}

// Break implements Pool.
func (c *Client) Break(name string, h Holder) error { return c.Unlock(name, h.Cookie) }

// Holder implements Pool.
func (c *Client) Holder(name string) (Holder, error) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.cut {
		return Holder{}, ErrUnknown
	}
	held, ok := c.t.locks[name]
	if !ok || c.t.now() >= held.expires {
		return Holder{}, nil
	}
	return Holder{held.cookie, "client", "twin"}, nil
}

// Space implements Pool: as a cluster without a manager.
func (c *Client) Space() (free, total int64, err error) { return 0, 0, nil }

// ID implements Pool.
func (c *Client) ID() [16]byte { return [16]byte{'t', 'w', 'i', 'n'} }
