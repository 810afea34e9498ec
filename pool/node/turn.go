package node

import (
	"context"
	"sync"
	"time"
)

// lookEvery is how often a server that waits looks whether its shard has an owner.
const lookEvery = 250 * time.Millisecond

// Turn is when the server of a shard may claim it. Its zero value: it may not. Its methods may be
// called concurrently.
type Turn struct {
	mu    sync.Mutex // guards what follows
	may   bool
	after time.Duration
	set   time.Time
}

// Set sets whether the shard may be claimed, when nothing has owned it for a time from now on: the
// node that should have it is first, however long it has had no owner.
func (t *Turn) Set(may bool, after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.may, t.after, t.set = may, after, time.Now()
}

// now reports whether what has had no owner since then may be claimed.
func (t *Turn) now(free time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.set.After(free) {
		free = t.set
	}
	return t.may && time.Since(free) >= t.after
}

// Wait returns nil when the shard may be claimed. held reports whether it has an owner.
func (t *Turn) Wait(ctx context.Context, held func() (bool, error)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var since time.Time // zero: it has an owner
	for {
		owned, err := held()
		if err != nil {
			return err
		}
		switch now := time.Now(); {
		case owned:
			since = time.Time{}
		case since.IsZero():
			since = now
		}
		if !since.IsZero() && t.now(since) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
