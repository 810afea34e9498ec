// Package facts keeps what the nodes of a pool know of each other in one object of the pool: which
// configuration counts, which nodes there are, which of them has each shard, and what an
// administrator wants to have moved. Each change compares the version of the object, so none is
// lost, and there is no leader. A node is there as long as its lock lasts.
//
// None of this decides who owns a shard: the lock and the epoch of the shard do.
package facts

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Facts are what all nodes know. Their maps are not nil.
type Facts struct {
	// change is the number of the last change of the object.
	change uint64
	pool   poolRow
	// Configuration is the one that counts.
	Configuration Configuration
	// Nodes are those that have ever begun, by name.
	Nodes map[string]Node
	// Owners are who serves which shard, or served it last.
	Owners map[int]Owner
	// Moves are what an administrator wants to have moved, by shard.
	Moves map[int]Move
	// Drains are the nodes that are to have no shards.
	Drains map[string]Drain
}

// poolRow is made with the pool and never changes.
type poolRow struct {
	Version int `json:"version"`
	Shards  int `json:"shards"`
	// Secret is what the keys of all shards follow from.
	Secret []byte `json:"secret"`
}

const (
	// version is that of the rows.
	version = 1
	// secretBytes is the length of the secret of a pool.
	secretBytes = 32
)

// Configuration is a configuration that nodes have.
type Configuration struct {
	// Generation grows by 1 with each change.
	Generation uint64 `json:"generation"`
	// Digests are conf.Config.Shared.
	Digests map[string]string `json:"digests"`
	// Node has set it, At.
	Node string    `json:"node"`
	At   time.Time `json:"at"`
}

// Node is a machine.
type Node struct {
	// Generation is that of its configuration; 0: it has one that never counted.
	Generation uint64 `json:"generation"`
	// Started is when its process began.
	Started time.Time `json:"started"`
}

// Owner is who serves a shard.
type Owner struct {
	// Node is "" where nothing serves it; the other fields are of the last owner then.
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	// Store is the ID of the store of the shard.
	Store string    `json:"store"`
	Since time.Time `json:"since"`
	// Refuses is why its server serves by the configuration before the one that it was sent last, "" if
	// it does not; at most MaxRefuses bytes.
	Refuses string `json:"refuses,omitempty"`
}

// MaxRefuses bounds Owner.Refuses, in bytes.
const MaxRefuses = 500

// Move is a shard that an administrator wants to be at another node.
type Move struct {
	To string    `json:"to"`
	At time.Time `json:"at"`
}

// Drain is when an administrator has drained a node.
type Drain struct {
	At time.Time `json:"at"`
}

// Shards returns how many shards the pool was made with.
func (f *Facts) Shards() int { return f.pool.Shards }

// Key returns a key of 32 bytes that all shards of the pool have, and no other pool.
func (f *Facts) Key(purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, f.pool.Secret, nil, "odx pool "+purpose, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("key of the pool: %w", err)
	}
	return key, nil
}

// ShardOf returns the shard that a store is, by its ID; false for a store of another pool, and for
// one that was never served.
func (f *Facts) ShardOf(store string) (shard int, o Owner, ok bool) {
	for shard, o = range f.Owners {
		if o.Store == store {
			return shard, o, true
		}
	}
	return 0, Owner{}, false
}

// clone returns a copy.
func (f *Facts) clone() *Facts {
	c := *f
	c.pool.Secret = slices.Clone(f.pool.Secret)
	c.Configuration.Digests = maps.Clone(f.Configuration.Digests)
	c.Nodes, c.Owners, c.Moves, c.Drains = maps.Clone(f.Nodes), maps.Clone(f.Owners), maps.Clone(f.Moves), maps.Clone(f.Drains)
	return &c
}
