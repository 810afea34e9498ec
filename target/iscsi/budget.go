package iscsi

import (
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"odx/target/bufpool"
)

// budget bounds the memory of a server for the data of commands, from allocation until
// the data is sent or written.
//
// It is divided between initiators: each may hold as much as remains free, and at least
// one command. An initiator that releases nothing thus leaves half of the budget to the
// others; stall.go reclaims the memory of stalled initiators.
//
// It has parts, so that small commands do not wait for large ones, and no command waits
// for memory that only a later command can release:
//
//   - large, for commands above mediumCharge, and medium, for the others. Those also use
//     large while no command waits for it.
//   - small, for commands up to smallCharge when medium and large are exhausted: UNMAP,
//     reservations, token copies, short reads.
//   - unsolicited, for data that arrives before memory for all data of its command is
//     available. Such a command holds unsolicited memory and waits for medium or large;
//     a command that holds medium or large does not wait.
//
// A command whose data is already in transit ends with BUSY if it gets no memory, since
// the connection must remain readable for task management and logout. Other commands
// wait in a queue.
//
// Package quota has the same rule for callers that may block.
type budget struct {
	unsolicited, small, medium, large part

	kick chan struct{} // memory was released while claims are queued
	stop chan struct{}

	mu     sync.Mutex // guards the fields below
	queue  []*claim   // in order of arrival
	shares map[string]*share
}

// part is a part of a budget in bytes.
type part struct {
	index int
	limit atomic.Int64
	// whole lets a command that is larger than the part use all of it.
	whole   bool
	held    atomic.Int64
	waiting atomic.Int32 // queued claims for this part
}

// share is the memory that an initiator, with all its sessions, holds of each part.
type share struct {
	held     [4]atomic.Int64
	sessions int // guarded by the budget's mu
}

// charge is memory taken from a part on behalf of a share.
type charge struct {
	part *part
	n    int64
}

// claim is a queued request for memory.
type claim struct {
	share *share
	part  *part // medium or large
	n     int64
	// granted is set before ready is called, which takes it; guarded by the budget's
	// mu.
	granted charge
	over    bool // granted or abandoned; guarded by the budget's mu
	ready   func()
}

const (
	// smallCharge and mediumCharge are the maximum charges of these parts: 64 KiB, and
	// 1 MiB with the PDUs that carry it.
	smallCharge  = 64 << 10
	mediumCharge = 1<<20 + 64<<10
	// outPDULength is the approximate size of an outPDU without its data.
	outPDULength = int64(unsafe.Sizeof(outPDU{}))
)

func newBudget(limit int64) *budget {
	b := &budget{kick: make(chan struct{}, 1), stop: make(chan struct{}), shares: make(map[string]*share)}
	for i, p := range []*part{&b.unsolicited, &b.small, &b.medium, &b.large} {
		p.index, p.whole = i, p != &b.small
	}
	b.setLimit(limit)
	return b
}

// setLimit divides limit bytes between the parts. Where more is held than a new limit, nothing
// is granted until enough is released.
func (b *budget) setLimit(limit int64) {
	b.unsolicited.limit.Store(limit / 4)
	b.small.limit.Store(limit / 8)
	b.medium.limit.Store(limit / 4)
	b.large.limit.Store(limit - limit/4 - limit/8 - limit/4)
	b.recheck() // claims may fit now
}

// join returns the share of an initiator and counts a session.
func (b *budget) join(initiator string) *share {
	b.mu.Lock()
	defer b.mu.Unlock()
	sh := b.shares[initiator]
	if sh == nil {
		sh = &share{}
		b.shares[initiator] = sh
	}
	sh.sessions++
	return sh
}

// leave reverts join. Tasks of the session may still release memory.
func (b *budget) leave(initiator string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sh := b.shares[initiator]
	if sh.sessions--; sh.sessions == 0 {
		delete(b.shares, initiator)
	}
}

// take takes n bytes for a command, unless other commands wait for that part.
func (b *budget) take(sh *share, n int64) (charge, bool) {
	if n <= mediumCharge {
		if b.medium.waiting.Load() > 0 {
			return b.takeSmall(sh, n)
		}
		if b.medium.take(sh, n) {
			return charge{&b.medium, n}, true
		}
	}
	if b.large.waiting.Load() == 0 && b.large.take(sh, n) {
		return charge{&b.large, n}, true
	}
	return b.takeSmall(sh, n)
}

func (b *budget) takeSmall(sh *share, n int64) (charge, bool) {
	if n <= smallCharge && b.small.take(sh, n) {
		return charge{&b.small, n}, true
	}
	return charge{}, false
}

// take takes n bytes if they are free, and if the share then holds no more than remains
// free, or nothing else.
func (p *part) take(sh *share, n int64) bool {
	total, own, limit := p.held.Add(n), sh.held[p.index].Add(n), p.limit.Load()
	if total <= limit && (own == n || own <= limit-total) || p.whole && total == n {
		return true
	}
	p.release(sh, n)
	return false
}

func (p *part) release(sh *share, n int64) {
	sh.held[p.index].Add(-n)
	p.held.Add(-n)
}

// release returns a charge. It takes no lock.
func (b *budget) release(sh *share, c charge) {
	if c.n == 0 {
		return
	}
	c.part.release(sh, c.n)
	b.recheck()
}

// resize changes a charge to n bytes. It does not check the limit of an increase, since
// the memory is already allocated.
func (b *budget) resize(sh *share, c charge, n int64) charge {
	switch {
	case c.part == nil:
		c = charge{&b.medium, 0}
		fallthrough
	case n > c.n:
		c.part.held.Add(n - c.n)
		sh.held[c.part.index].Add(n - c.n)
	default:
		b.release(sh, charge{c.part, c.n - n})
	}
	return charge{c.part, n}
}

// wait queues a claim for n bytes. The goroutine of serve calls ready once the claim is
// granted.
func (b *budget) wait(sh *share, n int64, ready func()) *claim {
	c := &claim{share: sh, part: &b.medium, n: n, ready: ready}
	if n > mediumCharge {
		c.part = &b.large
	}
	b.mu.Lock()
	b.queue = append(b.queue, c)
	c.part.waiting.Add(1)
	b.mu.Unlock()
	b.recheck() // memory may have been released before the claim was visible
	return c
}

// result returns what a claim was granted, and whether it is over.
func (b *budget) result(c *claim) (got charge, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.granted, c.over
}

// abandon cancels a claim and releases what it was granted.
func (b *budget) abandon(c *claim) {
	b.mu.Lock()
	if i := slices.Index(b.queue, c); i >= 0 {
		b.dequeue(i)
	}
	c.over = true
	got := c.granted
	c.granted = charge{}
	b.mu.Unlock()
	b.release(c.share, got)
}

// serve grants queued claims until stop is closed.
func (b *budget) serve() {
	for {
		select {
		case <-b.stop:
			return
		case <-b.kick:
		}
		for c := b.grant(); c != nil; c = b.grant() {
			c.ready()
		}
	}
}

// dequeue removes a claim from the queue. The caller holds mu.
func (b *budget) dequeue(i int) {
	b.queue[i].part.waiting.Add(-1)
	b.queue = slices.Delete(b.queue, i, i+1)
}

// grant grants a claim and returns it, or nil if none can be granted.
func (b *budget) grant() *claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.grantOf(&b.medium); c != nil {
		return c
	}
	return b.grantOf(&b.large)
}

// grantOf grants a claim for part p: that of the initiator that holds least, and of
// those the first. The caller holds mu.
func (b *budget) grantOf(p *part) *claim {
	tried := make(map[*share]bool) // shares that hold too much for now
	for {
		first := -1
		for i, c := range b.queue {
			if c.part == p && !tried[c.share] && (first < 0 || c.share.of(p) < b.queue[first].share.of(p)) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		c := b.queue[first]
		got := charge{p, c.n}
		ok := p.take(c.share, c.n)
		if !ok {
			got, ok = b.takeSmall(c.share, c.n)
		}
		if ok {
			c.granted, c.over = got, true
			b.dequeue(first)
			return c
		}
		if p.held.Load()+c.n > p.limit.Load() {
			return nil // later claims must not overtake it
		}
		tried[c.share] = true
	}
}

// recheck makes serve check the queue again: a claim may have missed memory that was
// released during a failed attempt of another.
func (b *budget) recheck() {
	if b.contended() {
		select {
		case b.kick <- struct{}{}:
		default:
		}
	}
}

// contended reports whether claims are queued.
func (b *budget) contended() bool { return b.medium.waiting.Load()+b.large.waiting.Load() > 0 }

// of returns what the share holds of a part.
func (sh *share) of(p *part) int64 { return sh.held[p.index].Load() }

// short reports whether so much is held that initiators may have to wait.
func (b *budget) short() bool {
	return b.contended() || b.large.aboveQuarter() || b.medium.aboveQuarter() || b.small.aboveQuarter() || b.unsolicited.aboveQuarter()
}

func (p *part) aboveQuarter() bool { return p.held.Load() > p.limit.Load()/4 }

// bufferCharge returns the memory of a buffer for n bytes.
func bufferCharge(n int) int64 {
	if n == 0 {
		return 0
	}
	return int64(bufpool.Size(n))
}

// BufferedBytes returns the memory that the data of commands occupies.
func (srv *Server) BufferedBytes() int64 {
	b := srv.budget
	return b.large.held.Load() + b.medium.held.Load() + b.small.held.Load() + b.unsolicited.held.Load()
}
