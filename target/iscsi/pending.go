package iscsi

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// pendingLogins are the connections that have not logged in. They cost their peers
// nothing, so their number is bounded per address and in total. A connection beyond a
// bound is queued, without reading from it, until another one has logged in or ended. It
// is closed if the queue is full. The connections of a crowded address, for example after
// many guests of a host have started at once, are thus queued without effect on other
// addresses.
//
// If the total is reached, a connection of an address with few logins replaces one of the
// address with most logins, if that one has exceeded LoginPatience. The server's mu guards
// pendingLogins.
type pendingLogins struct {
	list   []*pendingLogin // in order of arrival; those without conn are queued
	counts map[netip.Prefix]*loginCount
	all    loginCount
	warned time.Time // time of the last log line
}

// loginCount counts the pending logins of an address, or of all addresses.
type loginCount struct {
	active int // with a reader
	queued int // without a reader
	ended  int // evicted, but their readers have not ended
}

type pendingLogin struct {
	nc     net.Conn
	at     Portal
	origin netip.Prefix
	since  time.Time // time when it was accepted or became active
	c      *conn     // nil while queued
	ended  bool
}

const (
	// warnEvery is the minimum interval between log lines about refused connections.
	warnEvery = time.Second
	// queuedLogins is the maximum number of queued logins per possible active one.
	queuedLogins = 4
)

// originOf returns the prefix that identifies a peer: an IPv4 address, or the /64 network
// of an IPv6 address. Connections that are not TCP share one prefix.
func originOf(a net.Addr) netip.Prefix {
	ap, _ := addrPort(a)
	bits := ap.Addr().BitLen()
	if ap.Addr().Is6() {
		bits = 64
	}
	p, _ := ap.Addr().Prefix(bits) // zero if there is no address
	return p
}

// add queues a connection, or returns false if too many are queued. The connections of an
// address may occupy at most half of the free queue.
func (p *pendingLogins) add(nc net.Conn, at Portal, o *Options) bool {
	origin := originOf(nc.RemoteAddr())
	n := p.counts[origin]
	if n == nil {
		n = &loginCount{}
	}
	if n.queued >= queuedLogins*o.MaxUnauthenticated-p.all.queued {
		return false
	}
	if p.counts == nil {
		p.counts = make(map[netip.Prefix]*loginCount)
	}
	p.counts[origin] = n
	n.queued++
	p.all.queued++
	p.list = append(p.list, &pendingLogin{nc: nc, at: at, origin: origin, since: time.Now()})
	return true
}

// next returns the connection to activate, or nil: the first one of the address with the
// fewest active logins. The caller must close evicted, if any, in its favor.
func (p *pendingLogins) next(o *Options) (l *pendingLogin, evicted *conn) {
	if p.all.queued == 0 {
		return nil, nil
	}
	fewest := o.MaxUnauthenticatedPerAddress
	for _, other := range p.list {
		if other.c == nil && p.counts[other.origin].active < fewest {
			l, fewest = other, p.counts[other.origin].active
		}
	}
	if l == nil {
		return nil, nil
	}
	if p.all.active >= o.MaxUnauthenticated {
		out := p.candidate(fewest, o.LoginPatience)
		if out == nil || p.all.ended >= o.MaxUnauthenticated {
			return nil, nil
		}
		out.ended = true
		p.move(out, func(n *loginCount) { n.active--; n.ended++ })
		evicted = out.c
	}
	p.move(l, func(n *loginCount) { n.queued--; n.active++ })
	l.since = time.Now()
	return l, evicted
}

// candidate returns the login to evict in favor of an address with n active logins: the
// oldest of the address with most, if that has more, and if it has exceeded patience.
func (p *pendingLogins) candidate(n int, patience time.Duration) *pendingLogin {
	var most netip.Prefix
	active := n + 1
	for origin, count := range p.counts {
		if count.active > active {
			most, active = origin, count.active
		}
	}
	if active == n+1 {
		return nil
	}
	i := slices.IndexFunc(p.list, func(l *pendingLogin) bool { return l.c != nil && !l.ended && l.origin == most })
	if i < 0 || time.Since(p.list[i].since) < patience {
		return nil
	}
	return p.list[i]
}

// move changes the counts of l.
func (p *pendingLogins) move(l *pendingLogin, change func(n *loginCount)) {
	change(p.counts[l.origin])
	change(&p.all)
	if *p.counts[l.origin] == (loginCount{}) {
		delete(p.counts, l.origin)
	}
}

// remove removes a connection that has logged in or ended.
func (p *pendingLogins) remove(c *conn) {
	if i := slices.IndexFunc(p.list, func(l *pendingLogin) bool { return l.c == c }); i >= 0 {
		p.removeAt(i)
	}
}

func (p *pendingLogins) removeAt(i int) {
	l := p.list[i]
	p.list = slices.Delete(p.list, i, i+1)
	p.move(l, func(n *loginCount) {
		switch {
		case l.c == nil:
			n.queued--
		case l.ended:
			n.ended--
		default:
			n.active--
		}
	})
}

// expire removes and returns the connections that were queued before t.
func (p *pendingLogins) expire(t time.Time) (expired []net.Conn) {
	return p.removeQueued(func(l *pendingLogin) bool { return l.since.Before(t) })
}

// removeAtPortal removes and returns the queued connections of a portal.
func (p *pendingLogins) removeAtPortal(l net.Listener) (removed []net.Conn) {
	return p.removeQueued(func(q *pendingLogin) bool { return q.at.Listener == l })
}

// removeQueued removes and returns the queued connections that match.
func (p *pendingLogins) removeQueued(match func(l *pendingLogin) bool) (removed []net.Conn) {
	for i := 0; i < len(p.list); {
		if l := p.list[i]; l.c == nil && match(l) {
			removed = append(removed, l.nc)
			p.removeAt(i)
			continue
		}
		i++
	}
	return removed
}

// mayWarn reports whether warnEvery has passed since the last log line.
func (p *pendingLogins) mayWarn() bool {
	if now := time.Now(); now.Sub(p.warned) >= warnEvery {
		p.warned = now
		return true
	}
	return false
}
