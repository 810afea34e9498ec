package iscsi

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// strangers are the connections that have not logged in, the oldest first. They
// cost their peers nothing, so that their number is bounded; and because whoever
// wants to log in does it at once, it is the oldest that make room for new ones.
// One address can push out only its own connections until all addresses
// together are too many.
type strangers struct {
	list []*stranger
	// turnedOut counts those that were closed for others and are still in list.
	turnedOut int
	told      time.Time // when the log last heard of it
}

type stranger struct {
	c         *conn
	origin    netip.Prefix
	turnedOut bool
}

// tellEvery is how often the log hears that connections make room for others.
const tellEvery = time.Second

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

// add takes in c, and returns the connection that has to be closed for that, if
// any. ok is false, and nothing has changed, when there are too many that were
// closed already and have not ended.
func (s *strangers) add(c *conn, o *Options) (victim *conn, ok bool) {
	if s.turnedOut >= o.MaxUnauthenticated {
		return nil, false
	}
	n := &stranger{c: c, origin: originOf(c.nc.RemoteAddr())}
	if out := s.surplus(n.origin, o); out != nil {
		out.turnedOut = true
		s.turnedOut++
		victim = out.c
	}
	s.list = append(s.list, n)
	return victim, true
}

// surplus returns the stranger that has to go when one more comes from origin,
// nil when there is room.
func (s *strangers) surplus(origin netip.Prefix, o *Options) *stranger {
	count := make(map[netip.Prefix]int)
	for _, other := range s.list {
		if !other.turnedOut {
			count[other.origin]++
		}
	}
	switch {
	case count[origin] >= o.MaxUnauthenticatedPerAddress:
	case len(s.list)-s.turnedOut < o.MaxUnauthenticated:
		return nil
	default:
		for _, other := range s.list {
			if count[other.origin] > count[origin] {
				origin = other.origin
			}
		}
	}
	for _, other := range s.list {
		if !other.turnedOut && other.origin == origin {
			return other
		}
	}
	return nil
}

// remove takes out a connection that has logged in or ended.
func (s *strangers) remove(c *conn) {
	i := slices.IndexFunc(s.list, func(other *stranger) bool { return other.c == c })
	if i < 0 {
		return
	}
	if s.list[i].turnedOut {
		s.turnedOut--
	}
	s.list = slices.Delete(s.list, i, i+1)
}

// mayTell reports whether it is time for another line in the log.
func (s *strangers) mayTell() bool {
	if now := time.Now(); now.Sub(s.told) >= tellEvery {
		s.told = now
		return true
	}
	return false
}
