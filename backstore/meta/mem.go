package meta

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
)

// Mem is a Reader in memory, for tests. Each Update creates a new version of a
// persistent tree, so that a Scan is a point-in-time view.
type Mem struct {
	seed maphash.Seed

	mu   sync.Mutex // guards root
	root *node
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
func NewMem() *Mem { return &Mem{seed: maphash.MakeSeed()} }

func (m *Mem) newest() memView {
	m.mu.Lock()
	defer m.mu.Unlock()
	return memView{m.root}
}

// Get implements Reader.
func (m *Mem) Get(key []byte) ([]byte, error) { return m.newest().Get(key) }

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

// Scan implements Reader.
func (m *Mem) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return m.newest().Scan(prefix, fn)
}

func (v memView) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return v.root.scan(string(prefix), func(n *node) error {
		// Copies, overwritten after the call, reveal callers that write to them or
		// retain them.
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

// Update sets and deletes rows; of several ops on a key the last takes effect.
func (m *Mem) Update(ops []Op) error {
	for _, op := range ops {
		if len(op.Key) == 0 || len(op.Key) > MaxKey || len(op.Value) > MaxValue {
			return fmt.Errorf("row with a key of %d and a value of %d bytes: %w", len(op.Key), len(op.Value), ErrTooLarge)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range ops {
		low, high := m.root.split(string(op.Key))
		m.root = low.merge(high)
		if op.Value != nil {
			leaf := &node{key: string(op.Key), value: append([]byte{}, op.Value...), priority: maphash.Bytes(m.seed, op.Key)}
			m.root = low.merge(leaf).merge(high)
		}
	}
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
