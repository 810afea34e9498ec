package extent

import (
	"encoding/binary"
	"fmt"
	"sync"

	"odx/backstore/meta"
	"odx/backstore/segment"
)

// usagePrefix is the first byte of a segment usage record's key.
const usagePrefix = 'u'

// Usage counts the live blocks of each segment: those of extents in the table.
// A segment with none can be deleted once a checkpoint has stored that.
type Usage struct {
	mu      sync.Mutex
	live    map[segment.ID]int64 // guarded by mu
	changed map[segment.ID]bool  // since the last cut; guarded by mu
}

// LoadUsage reads the counts that the last checkpoint stored.
func LoadUsage(kv meta.KV) (*Usage, error) {
	u := &Usage{live: make(map[segment.ID]int64), changed: make(map[segment.ID]bool)}
	err := kv.Scan([]byte{usagePrefix}, func(key, value []byte) error {
		if len(key) != 5 || len(value) != 8 {
			return fmt.Errorf("%w: segment usage record of %d and %d bytes", ErrInconsistent, len(key), len(value))
		}
		u.live[segment.ID(binary.BigEndian.Uint32(key[1:]))] = int64(binary.BigEndian.Uint64(value))
		return nil
	})
	return u, err
}

func (u *Usage) add(id segment.ID, blocks int64) {
	u.mu.Lock()
	u.live[id] += blocks
	u.changed[id] = true
	if u.live[id] == 0 {
		delete(u.live, id)
	}
	u.mu.Unlock()
}

// Live returns the live blocks of one segment.
func (u *Usage) Live(id segment.ID) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.live[id]
}

// Total returns the live blocks of all segments.
func (u *Usage) Total() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	var n int64
	for _, blocks := range u.live {
		n += blocks
	}
	return n
}

// Cut returns the stored form of the counts that changed since the last cut.
func (u *Usage) Cut() []meta.Op {
	u.mu.Lock()
	defer u.mu.Unlock()
	ops := make([]meta.Op, 0, len(u.changed))
	for id := range u.changed {
		op := meta.Op{Key: binary.BigEndian.AppendUint32([]byte{usagePrefix}, uint32(id))}
		if n := u.live[id]; n != 0 {
			op.Value = binary.BigEndian.AppendUint64(nil, uint64(n))
		}
		ops = append(ops, op)
	}
	clear(u.changed)
	return ops
}

// Abandon takes back a cut that could not be stored.
func (u *Usage) Abandon(ops []meta.Op) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, op := range ops {
		u.changed[segment.ID(binary.BigEndian.Uint32(op.Key[1:]))] = true
	}
}
