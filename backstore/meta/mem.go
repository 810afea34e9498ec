package meta

import (
	"bytes"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
)

// Mem is a KV in memory, for tests. Each Update makes a new version of a
// persistent tree, so that a Scan sees one point in time, and CrashClone can
// go back to any version since the last Sync.
type Mem struct {
	seed maphash.Seed

	mu       sync.Mutex // guards what follows
	versions []*node    // the last synced one, and those after it
	closed   bool
}

// node is a node of a treap: a search tree by key, a heap by priority. Nodes
// are immutable.
type node struct {
	key         string
	value       []byte
	priority    uint64
	left, right *node
}

// NewMem returns an empty Mem.
func NewMem() *Mem {
	return &Mem{seed: maphash.MakeSeed(), versions: []*node{nil}}
}

func (m *Mem) newest() (*node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	return m.versions[len(m.versions)-1], nil
}

// Get implements KV.
func (m *Mem) Get(key []byte) ([]byte, error) {
	n, err := m.newest()
	if err != nil {
		return nil, err
	}
	return memView{n}.Get(key)
}

// View implements KV.
func (m *Mem) View(fn func(Reader) error) error {
	n, err := m.newest()
	if err != nil {
		return err
	}
	return fn(memView{n})
}

// memView is one version of a Mem.
type memView struct{ root *node }

func (v memView) Get(key []byte) ([]byte, error) {
	for n := v.root; n != nil; {
		switch c := strings.Compare(string(key), n.key); {
		case c == 0:
			return append([]byte{}, n.value...), nil
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil, ErrNotFound
}

// Scan implements KV.
func (m *Mem) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return m.View(func(r Reader) error { return r.Scan(prefix, fn) })
}

func (v memView) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return v.root.scan(string(prefix), func(n *node) error {
		// Copies: who writes to them, or keeps them, must not get away with it.
		key, value := []byte(n.key), bytes.Clone(n.value)
		err := fn(key, value)
		scribble(key)
		scribble(value)
		return err
	})
}

func scribble(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}

func (n *node) scan(prefix string, fn func(n *node) error) error {
	if n == nil {
		return nil
	}
	starts := strings.HasPrefix(n.key, prefix)
	if starts || n.key > prefix {
		if err := n.left.scan(prefix, fn); err != nil {
			return err
		}
	}
	if starts {
		if err := fn(n); err != nil {
			return err
		}
	}
	if starts || n.key < prefix {
		return n.right.scan(prefix, fn)
	}
	return nil
}

// Update implements KV.
func (m *Mem) Update(ops []Op) error {
	if err := check(ops); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	root := m.versions[len(m.versions)-1]
	for _, op := range ops {
		low, high := root.split(string(op.Key))
		root = low.merge(high)
		if op.Value != nil {
			leaf := &node{key: string(op.Key), value: append([]byte{}, op.Value...), priority: maphash.Bytes(m.seed, op.Key)}
			root = low.merge(leaf).merge(high)
		}
	}
	m.versions = append(m.versions, root)
	return nil
}

// split returns the keys below key and those above it; key itself is in neither.
func (n *node) split(key string) (low, high *node) {
	switch {
	case n == nil:
		return nil, nil
	case n.key == key:
		return n.left, n.right
	case n.key < key:
		c := *n
		c.right, high = n.right.split(key)
		return &c, high
	default:
		c := *n
		low, c.left = n.left.split(key)
		return low, &c
	}
}

// merge joins two trees, where all keys of n are below those of high.
func (n *node) merge(high *node) *node {
	switch {
	case n == nil:
		return high
	case high == nil:
		return n
	case n.priority > high.priority:
		c := *n
		c.right = n.right.merge(high)
		return &c
	default:
		c := *high
		c.left = n.merge(high.left)
		return &c
	}
}

// Sync implements KV.
func (m *Mem) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.versions = []*node{m.versions[len(m.versions)-1]}
	return nil
}

// Close implements KV.
func (m *Mem) Close() error {
	if err := m.Sync(); err != nil {
		return err
	}
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	return nil
}

// CrashClone returns a new Mem with a state that a power cut at this instant
// may leave: a prefix of the Updates that includes all synced ones. m goes on
// unharmed.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.versions[rng.IntN(len(m.versions))]
	return &Mem{seed: m.seed, versions: []*node{found}}
}
