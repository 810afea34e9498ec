package iscsi

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// pendingLogins are the connections that have not logged in. They cost their
// peers nothing, so that what they hold is bounded, first for each address, then
// in all: a connection beyond a bound waits, unread, until another one has logged
// in or ended, and is closed if too many wait already. So the connections of a
// crowded address, as after many guests of one host have started at once, take
// turns, and other addresses notice nothing of them.
//
// If there are too many in all, a connection of an address that has few takes the
// place of one of the address that has most, if that has had time enough to log
// in. It is guarded by the server's mu.
type pendingLogins struct {
	list   []*pendingLogin // in the order they came; those that have no conn wait
	counts map[netip.Prefix]*loginCount
	all    loginCount
	warned time.Time // when the log was last told of it
}

// loginCount counts the pending logins of an address, or all.
type loginCount struct {
	active int // a reader takes their requests
	queued int // they wait
	ended  int // closed for others, and their readers have not noticed
}

type pendingLogin struct {
	nc     net.Conn
	at     Portal
	origin netip.Prefix
	since  time.Time // when it was accepted or, once it is active, began
	c      *conn     // nil while it waits
	ended  bool
}

const (
	// warnEvery is how often the log says that connections are turned away.
	warnEvery = time.Second
	// queuedLogins is how many logins may wait for each that may be active.
	queuedLogins = 4
)

// originOf returns what counts as one peer: an IPv4 address, or the 64-bit
// network that a host's IPv6 addresses are in. Other connections are all one.
func originOf(a net.Addr) netip.Prefix {
	ap, _ := addrPort(a)
	bits := ap.Addr().BitLen()
	if ap.Addr().Is6() {
		bits = 64
	}
	p, _ := ap.Addr().Prefix(bits) // zero for an address that there is none of
	return p
}

// add has a connection wait for its turn; false says that too many wait. One
// address may have as many waiting as there is room left for others.
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

// next returns the connection whose turn it is, nil when none can begin: the
// first one of the address that has the fewest active ones. evicted, if any, has to
// be closed for it.
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
		out := p.surplus(fewest, o.LoginPatience)
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

// surplus returns the login that has to go for one of an address that has n active
// ones: the oldest of the address that has most, if that is more, and had patience
// for its login.
func (p *pendingLogins) surplus(n int, patience time.Duration) *pendingLogin {
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

// move changes the counts that l is in.
func (p *pendingLogins) move(l *pendingLogin, change func(n *loginCount)) {
	change(p.counts[l.origin])
	change(&p.all)
	if *p.counts[l.origin] == (loginCount{}) {
		delete(p.counts, l.origin)
	}
}

// remove takes out a connection that has logged in or ended.
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

// expire takes out the connections that have waited since before t.
func (p *pendingLogins) expire(t time.Time) (expired []net.Conn) {
	for i := 0; i < len(p.list); {
		if l := p.list[i]; l.c == nil && l.since.Before(t) {
			expired = append(expired, l.nc)
			p.removeAt(i)
			continue
		}
		i++
	}
	return expired
}

// mayWarn reports whether it is time for another line in the log.
func (p *pendingLogins) mayWarn() bool {
	if now := time.Now(); now.Sub(p.warned) >= warnEvery {
		p.warned = now
		return true
	}
	return false
}
