package api

import (
	"errors"
	"net/http"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

const (
	// failureRate and failureBurst bound the wrong secrets of an address: so many a second,
	// and so many at once.
	failureRate  = 2
	failureBurst = 20
	// maxFailures bounds the addresses that are remembered.
	maxFailures = 1024
)

// errFailures: an address has sent too many wrong secrets; what it sends now is not
// compared.
var errFailures = errors.New("too many wrong secrets from this address; try again in a second")

// failures bounds how fast an address can try secrets. Addresses of one /64 of IPv6 are
// one. The zero value has none.
type failures struct {
	mu sync.Mutex
	by map[netip.Prefix]*rate.Limiter
}

// addressOf returns what the failures of a request are counted by.
func addressOf(r *http.Request) netip.Prefix {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	a := at.Addr().Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// blocked reports whether an address has to wait.
func (f *failures) blocked(a netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.by[a]
	return l != nil && l.Tokens() < 1
}

// add counts a wrong secret. Of too many addresses, the one with the fewest is forgotten.
func (f *failures) add(a netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.by[a]
	if l == nil {
		if len(f.by) >= maxFailures {
			f.forgetOne()
		}
		if f.by == nil {
			f.by = map[netip.Prefix]*rate.Limiter{}
		}
		l = rate.NewLimiter(failureRate, failureBurst)
		f.by[a] = l
	}
	l.Allow()
}

// forgetOne forgets the address with the fewest recent failures. The caller holds mu.
func (f *failures) forgetOne() {
	var fewest netip.Prefix
	most := -1.0
	for a, l := range f.by {
		if tokens := l.Tokens(); tokens > most {
			fewest, most = a, tokens
		}
	}
	delete(f.by, fewest)
}
