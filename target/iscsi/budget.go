package iscsi

import (
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"odx/target/bufpool"
)

// budget bounds the memory that a server has for the data of commands, from the
// time that room is made for it until it was sent or written.
//
// It is divided between initiators: each may hold as much as is left free, and one
// command in any case. So one that gives nothing back leaves half of it to
// others, and stall.go takes back what those hold that do not move.
//
// It is in parts, so that commands that move little do not wait for those that
// move much, and none for memory that only later commands can free:
//
//   - large, and medium: for commands that move more than mediumCharge, and others.
//     The others may take of large as well while nothing waits for it.
//   - small: for commands that move no more than smallCharge when there is nothing
//     else: UNMAP, reservations, copies by token, short reads.
//   - unsolicited: for data that came before there was memory for all of its
//     command's. Such a command holds this and waits for medium or large; what
//     holds those waits for nothing.
//
// Who gets nothing is answered BUSY if its data is already on the way, because
// the connection has to be read on: task management and logouts come by it.
// Others wait in line.
type budget struct {
	unsolicited, small, medium, large part

	kick chan struct{} // memory was given back while there was a line
	stop chan struct{}

	mu     sync.Mutex // guards what follows
	line   []*claim   // in the order they came
	shares map[string]*share
}

// part is a part of a budget, in bytes.
type part struct {
	index int
	limit int64
	// whole: a command that is larger than the part gets all of it.
	whole   bool
	held    atomic.Int64
	waiting atomic.Int32 // claims in line for this part
}

// share is what one initiator holds of each part. It belongs to all of its
// sessions.
type share struct {
	held     [4]atomic.Int64
	sessions int // guarded by the budget's mu
}

// charge is memory that was taken from a part for a share.
type charge struct {
	part *part
	n    int64
}

// claim is a command's wait for memory.
type claim struct {
	share *share
	part  *part // medium or large
	n     int64
	// granted is what it got. It is set before ready is called, which takes it;
	// guarded by the budget's mu.
	granted charge
	over    bool // granted, or given up; guarded by the budget's mu
	ready   func()
}

const (
	// smallCharge and mediumCharge are the most that a command may take of those
	// parts: 64 KiB, and 1 MiB with the PDUs that carry it.
	smallCharge  = 64 << 10
	mediumCharge = 1<<20 + 64<<10
	// outPDULength is about what a PDU on its way out takes besides its data.
	outPDULength = int64(unsafe.Sizeof(outPDU{}))
)

func newBudget(limit int64) *budget {
	b := &budget{kick: make(chan struct{}, 1), stop: make(chan struct{}), shares: make(map[string]*share)}
	for i, p := range []struct {
		*part
		limit int64
		whole bool
	}{
		{&b.unsolicited, limit / 4, true},
		{&b.small, limit / 8, false},
		{&b.medium, limit / 4, true},
		{&b.large, limit - limit/4 - limit/8 - limit/4, true},
	} {
		p.part.index, p.part.limit, p.part.whole = i, p.limit, p.whole
	}
	return b
}

// join returns the share of an initiator for one more of its sessions.
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

// leave ends what join began. Tasks that are not over may still give back.
func (b *budget) leave(initiator string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sh := b.shares[initiator]
	if sh.sessions--; sh.sessions == 0 {
		delete(b.shares, initiator)
	}
}

// take takes n bytes for a command, unless others wait for what it would take.
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

// take takes n bytes if they are free, and the share would hold no more than is
// then left, or nothing else.
func (p *part) take(sh *share, n int64) bool {
	total, own := p.held.Add(n), sh.held[p.index].Add(n)
	if total <= p.limit && (own == n || own <= p.limit-total) || p.whole && total == n {
		return true
	}
	p.give(sh, n)
	return false
}

func (p *part) give(sh *share, n int64) {
	sh.held[p.index].Add(-n)
	p.held.Add(-n)
}

// give gives back a charge. It takes no lock.
func (b *budget) give(sh *share, c charge) {
	if c.n == 0 {
		return
	}
	c.part.give(sh, c.n)
	b.look()
}

// resize makes a charge one of n bytes. More than before is taken without asking:
// the memory is there already.
func (b *budget) resize(sh *share, c charge, n int64) charge {
	switch {
	case c.part == nil:
		c = charge{&b.medium, 0}
		fallthrough
	case n > c.n:
		c.part.held.Add(n - c.n)
		sh.held[c.part.index].Add(n - c.n)
	default:
		b.give(sh, charge{c.part, c.n - n})
	}
	return charge{c.part, n}
}

// wait puts a claim for n bytes in line. ready is called by the goroutine of run,
// once the claim has them.
func (b *budget) wait(sh *share, n int64, ready func()) *claim {
	c := &claim{share: sh, part: &b.medium, n: n, ready: ready}
	if n > mediumCharge {
		c.part = &b.large
	}
	b.mu.Lock()
	b.line = append(b.line, c)
	c.part.waiting.Add(1)
	b.mu.Unlock()
	b.look() // perhaps it was given back before the line was seen
	return c
}

// settle returns what a claim has got, and ok, once it is over.
func (b *budget) settle(c *claim) (got charge, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.granted, c.over
}

// abandon ends a claim that is not needed any more, and gives back what it got.
func (b *budget) abandon(c *claim) {
	b.mu.Lock()
	if i := slices.Index(b.line, c); i >= 0 {
		b.leaveLine(i)
	}
	c.over = true
	got := c.granted
	c.granted = charge{}
	b.mu.Unlock()
	b.give(c.share, got)
}

// run serves the line until stop is closed.
func (b *budget) run() {
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

// leaveLine takes a claim out of the line. mu is held.
func (b *budget) leaveLine(i int) {
	b.line[i].part.waiting.Add(-1)
	b.line = slices.Delete(b.line, i, i+1)
}

// grant gives memory to a claim, and returns it; nil when none can have any.
func (b *budget) grant() *claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.grantOf(&b.medium); c != nil {
		return c
	}
	return b.grantOf(&b.large)
}

// grantOf gives memory to the claim whose turn it is of those for a part: that of
// the initiator that holds least, and of those the first. mu is held.
func (b *budget) grantOf(p *part) *claim {
	tried := make(map[*share]bool) // got nothing: they hold too much for now
	for {
		first := -1
		for i, c := range b.line {
			if c.part == p && !tried[c.share] && (first < 0 || c.share.of(p) < b.line[first].share.of(p)) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		c := b.line[first]
		got := charge{p, c.n}
		ok := p.take(c.share, c.n)
		if !ok {
			got, ok = b.takeSmall(c.share, c.n)
		}
		if ok {
			c.granted, c.over = got, true
			b.leaveLine(first)
			return c
		}
		if p.held.Load()+c.n > p.limit {
			return nil // those after it must not take what it waits for
		}
		tried[c.share] = true
	}
}

// look has the line rechecked: a claim can have missed what was given back
// while another one tried in vain.
func (b *budget) look() {
	if b.waits() {
		select {
		case b.kick <- struct{}{}:
		default:
		}
	}
}

// waits reports whether there is a line.
func (b *budget) waits() bool { return b.medium.waiting.Load()+b.large.waiting.Load() > 0 }

// of is what the share holds of a part.
func (sh *share) of(p *part) int64 { return sh.held[p.index].Load() }

// short reports whether so much is held that initiators may have to wait for
// memory.
func (b *budget) short() bool {
	return b.waits() || b.large.crowded() || b.medium.crowded() || b.small.crowded() || b.unsolicited.crowded()
}

func (p *part) crowded() bool { return p.held.Load() > p.limit/4 }

// bufferCharge is what a buffer of n bytes takes.
func bufferCharge(n int) int64 {
	if n == 0 {
		return 0
	}
	return int64(bufpool.Size(n))
}

// BufferedBytes is how much memory the data of commands takes now.
func (srv *Server) BufferedBytes() int64 {
	b := srv.budget
	return b.large.held.Load() + b.medium.held.Load() + b.small.held.Load() + b.unsolicited.held.Load()
}
