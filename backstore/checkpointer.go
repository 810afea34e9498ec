package backstore

import (
	"sync"
	"sync/atomic"
	"time"

	"odx/latency"
)

// checkpointer has changes wait for a checkpoint when the
// checkpoints do not keep up.
type checkpointer struct {
	running sync.Mutex    // held by a checkpoint from cut to end
	storing atomic.Bool   // a checkpoint has files of the reserve, and returns others
	hurry   chan struct{} // has an element when a change waits
	stored  chan struct{} // has an element when one was stored

	took     latency.Histogram // of those that were stored
	failures atomic.Uint64
	last     atomic.Int64 // when the last one was stored, in Unix nanoseconds; 0: not yet

	mu       sync.Mutex
	finished chan struct{} // closed when the next checkpoint ends; guarded by mu
	err      error         // of the last checkpoint; guarded by mu
	stopped  bool          // no checkpoint will come; guarded by mu
}

// failure returns why the last checkpoint failed, nil if it did not.
func (c *checkpointer) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// next asks for a checkpoint and returns what is closed when one has ended.
func (c *checkpointer) next() (finished <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil, ErrClosed
	}
	if c.finished == nil {
		c.finished = make(chan struct{})
	}
	select {
	case c.hurry <- struct{}{}:
	default:
	}
	return c.finished, nil
}

// recheck lets waiting writers look again though no checkpoint ended.
func (c *checkpointer) recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished != nil {
		close(c.finished)
		c.finished = nil
	}
}

// count counts a checkpoint that began at some time and has ended with err.
func (c *checkpointer) count(began time.Time, err error) {
	if err != nil {
		c.failures.Add(1)
		return
	}
	now := time.Now()
	c.took.Observe(now.Sub(began))
	c.last.Store(now.UnixNano())
}

// ended lets waiting writers look again after a checkpoint that returned err.
func (c *checkpointer) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	if c.finished != nil {
		close(c.finished)
		c.finished = nil
	}
}

func (c *checkpointer) stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.ended(ErrClosed)
}
