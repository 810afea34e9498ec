package facts

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"strings"
	"time"

	"odx/backstore/vfs/rados"
)

const (
	// object has the facts. A store has no object of the name.
	object = "facts"
	// presencePrefix is that of the object whose lock a node holds while it is there.
	presencePrefix = "node."
	// PresenceLease is how long a node that has ended without a word counts as being there. It is
	// less than what is left of the lock of a shard at that time, so that nodes know who is there
	// when they claim its shards.
	PresenceLease = 2500 * time.Millisecond
	// RenewEvery is how often a node renews that it is there.
	RenewEvery = 500 * time.Millisecond
	// attempts bounds how often a change is tried while others change the facts, and pauseMax how
	// long it waits in between.
	attempts = 30
	pauseMax = 40 * time.Millisecond
)

var (
	// ErrNone: the pool has no facts.
	ErrNone = errors.New("the pool has no shards yet")
	// ErrPresent: another process is the node.
	ErrPresent = errors.New("another process has the name of this node")
	// errBusy: others change the facts again and again.
	errBusy = errors.New("the facts of the pool are changed by others again and again; try again")
)

// Store is the object with the facts of a pool. Its methods may be called concurrently.
type Store struct{ pool rados.Pool }

// New returns the facts in the namespace of a pool.
func New(pool rados.Pool) *Store { return &Store{pool} }

// Make makes the facts of a pool with a number of shards, unless they are there, and returns those
// that are there then.
func (s *Store) Make(shards int) (*Facts, error) {
	f, err := s.Load()
	if !errors.Is(err, ErrNone) {
		return f, err
	}
	f = &Facts{pool: poolRow{version, shards, make([]byte, secretBytes)}}
	if _, err := rand.Read(f.pool.Secret); err != nil {
		return nil, fmt.Errorf("secret of the pool: %w", err)
	}
	rows, err := f.encode()
	if err != nil {
		return nil, err
	}
	err = s.pool.Begin(object, &rados.Change{Create: true, SetEpoch: 1, Set: rows}).Wait()
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the facts of the pool: %w", err)
	}
	return s.Load()
}

// Exist reports whether there are facts.
func (s *Store) Exist() (bool, error) {
	_, err := s.pool.Length(object)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Load returns the facts, or ErrNone.
func (s *Store) Load() (*Facts, error) {
	rows, change, err := s.pool.Rows(object)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("facts of the pool: %w", err)
	}
	return decode(rows, change)
}

// Update makes a change, and returns the facts as they are then. change is called with a copy of
// what they are, again after others have changed them; after an error of it nothing has changed.
func (s *Store) Update(ctx context.Context, change func(f *Facts) error) (*Facts, error) {
	for range attempts {
		before, err := s.Load()
		if err != nil {
			return nil, err
		}
		after := before.clone()
		if err := change(after); err != nil {
			return nil, err
		}
		c, err := difference(before, after)
		if err != nil {
			return nil, err
		}
		if len(c.Set)+len(c.Unset) == 0 {
			return before, nil
		}
		err = s.pool.Begin(object, c).Wait()
		if err == nil {
			after.change = c.SetEpoch
			return after, nil
		}
		if !errors.Is(err, rados.ErrRefused) {
			return nil, fmt.Errorf("change the facts of the pool: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(mrand.N(pauseMax)):
		}
	}
	return nil, errBusy
}

// difference returns the change of the object that makes one version of the facts another one.
func difference(before, after *Facts) (*rados.Change, error) {
	was, err := before.encode()
	if err != nil {
		return nil, err
	}
	is, err := after.encode()
	if err != nil {
		return nil, err
	}
	if _, err := decode(is, before.change); err != nil { // it would lock everything out
		return nil, err
	}
	c := &rados.Change{Compare: rados.Equal, Epoch: before.change, SetEpoch: before.change + 1, Set: map[string][]byte{}}
	for key, text := range is {
		if !bytes.Equal(was[key], text) {
			c.Set[key] = text
		}
	}
	for key := range was {
		if _, kept := is[key]; !kept {
			c.Unset = append(c.Unset, key)
		}
	}
	return c, nil
}

// Presence is that a node is there.
type Presence struct {
	s            *Store
	name, cookie string
}

// Enter says that a node is there, for PresenceLease; Renew is to be called before that has ended.
// ErrPresent: another process is the node, or was less than PresenceLease ago.
func (s *Store) Enter(name string) (*Presence, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	p := &Presence{s, name, fmt.Sprintf("%s/%d/%s", strings.ReplaceAll(host, "/", "-"), os.Getpid(), rand.Text())}
	if err := s.pool.Lock(presencePrefix+name, p.cookie, PresenceLease, false); errors.Is(err, rados.ErrBusy) {
		held, _ := s.pool.Holder(presencePrefix + name)
		return nil, fmt.Errorf("%w: %s, on the machine %s", ErrPresent, name, held.Host())
	} else if err != nil {
		return nil, fmt.Errorf("presence of node %s: %w", name, err)
	}
	return p, nil
}

// Renew extends the presence. A node that was stopped for a while enters again.
func (p *Presence) Renew() error {
	err := p.s.pool.Lock(presencePrefix+p.name, p.cookie, PresenceLease, true)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, rados.ErrBusy) {
		err = p.s.pool.Lock(presencePrefix+p.name, p.cookie, PresenceLease, false)
	}
	if err != nil {
		return fmt.Errorf("presence of node %s: %w", p.name, err)
	}
	return nil
}

// Leave says that the node is not there any more.
func (p *Presence) Leave() error { return p.s.pool.Unlock(presencePrefix+p.name, p.cookie) }

// Present returns which of some nodes are there.
func (s *Store) Present(names []string) (map[string]bool, error) {
	there := map[string]bool{}
	for _, name := range names {
		held, err := s.pool.Holder(presencePrefix + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("presence of node %s: %w", name, err)
		}
		there[name] = held != rados.Holder{}
	}
	return there, nil
}
