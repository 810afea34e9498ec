package iscsi

import (
	"sync"
	"time"
)

// Settler protects the changes of commands from being lost with this process: the
// initiator does not restart with it, and does not write the data again.
type Settler interface {
	// Unsettled reports whether there are changes that Settle has not covered.
	Unsettled() bool
	// Settle returns when all earlier changes survive the end of the process.
	Settle() error
}

// settled is the Settler of a server without one.
type settled struct{}

func (settled) Unsettled() bool { return false }
func (settled) Settle() error   { return nil }

// unsettled has commands that ran on a connection's reader and whose changes are yet to be
// settled, together. They count as running until then.
type unsettled struct {
	mu    sync.Mutex // guards the fields below
	tasks []*task
	spare []*task // to be reused for tasks
}

func (u *unsettled) add(t *task) {
	u.mu.Lock()
	u.tasks = append(u.tasks, t)
	u.mu.Unlock()
}

func (u *unsettled) empty() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.tasks) == 0
}

func (u *unsettled) take() []*task {
	u.mu.Lock()
	defer u.mu.Unlock()
	tasks := u.tasks
	u.tasks, u.spare = u.spare, nil
	return tasks
}

// giveBack returns the slice of take for reuse.
func (u *unsettled) giveBack(tasks []*task) {
	clear(tasks)
	u.mu.Lock()
	u.spare = tasks[:0]
	u.mu.Unlock()
}

// settle settles the unsettled commands and queues their responses.
func (c *conn) settle() (any bool) {
	tasks := c.unsettled.take()
	if len(tasks) == 0 {
		return false
	}
	err := c.srv.settler.Settle()
	now := time.Since(c.in.clock)
	for _, t := range tasks {
		t.ended = now
		if err != nil {
			t.st.Unsettled(err)
		}
		c.sess.finish(t)
	}
	c.unsettled.giveBack(tasks)
	return true
}

// settleOnReader is settle on the reader. If the disk blocks it, the watchdog starts
// another reader. The reader must not be in the middle of a PDU.
func (c *conn) settleOnReader() error {
	turn := c.turns.begin(&c.srv.watchdog)
	any := c.settle()
	if !c.turns.end(turn) {
		c.out.flush()
		return errReaderLost
	}
	if any {
		c.closedLoop.responded(c.out.nextStatSN())
	}
	return nil
}

// settleBeforeClose is settle before the connection ends. If the disk blocks it for
// AbortTimeout, the commands end without a response.
func (c *conn) settleBeforeClose() {
	if c.unsettled.empty() {
		return
	}
	done := make(chan struct{})
	c.srv.workers.Go(func() {
		defer close(done)
		c.settle()
	})
	late := time.NewTimer(c.srv.options().AbortTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
}

// settle settles a command that ran on a worker, together with those of others. Commands
// that only read do not wait, so that they continue while the disk stalls.
func (t *task) settle() {
	settler := t.conn.srv.settler
	if t.st.More() || !t.st.MayChange() || !settler.Unsettled() {
		return
	}
	if err := settler.Settle(); err != nil {
		t.st.Unsettled(err)
	}
	t.ended = time.Since(t.conn.in.clock)
}

// canRunUnsettled reports whether a command of this kind can run while others are
// unsettled: it does not wait for them, unlike PERSISTENT RESERVE OUT, which waits for
// tasks that it aborts.
func canRunUnsettled(opcode byte) bool {
	switch opcode {
	case 0x08, 0x28, 0xa8, 0x88, // READ
		0x0a, 0x2a, 0xaa, 0x8a, // WRITE
		0x41, 0x93, // WRITE SAME
		0x42, // UNMAP
		0x89: // COMPARE AND WRITE
		return true
	}
	return false
}
