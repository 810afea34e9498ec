package target

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"odx/conf"
)

// resolveLimit bounds how long the names in redirects may take to look up.
const resolveLimit = 2 * time.Second

// checkRedirects reports targets whose initiators are sent to this server itself,
// which would send them there again. It is called when the portals are bound.
func (s *Service) checkRedirects(ctx context.Context) error {
	var problems conf.Problems
	for i := range s.cfg.Targets {
		t := &s.cfg.Targets[i]
		if t.Redirect == nil {
			continue
		}
		if own := s.ownPortal(ctx, t.Redirect.To); own != "" {
			problems = append(problems, s.cfg.Problem("targets["+strconv.Itoa(i)+"].redirect.to",
				"%s is a portal of this server (%s), which would send initiators there again; write the address of another one", t.Redirect.To, own))
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// ownPortal returns the portal of the server that an address leads to, empty if it
// leads elsewhere or cannot be resolved.
func (s *Service) ownPortal(ctx context.Context, to conf.Portal) string {
	addresses := resolve(ctx, to.Host)
	for _, p := range s.portals.all() {
		at, err := netip.ParseAddrPort(p.address())
		if to.String() == p.Advertise || to.String() == p.String() {
			return p.String()
		}
		if err != nil || at.Port() != to.Port {
			continue
		}
		for _, a := range addresses {
			if a == at.Addr() || a.IsUnspecified() || at.Addr().IsUnspecified() && a.Is4() == at.Addr().Is4() && ofThisMachine(a) {
				return p.String()
			}
		}
	}
	return ""
}

// resolve returns the addresses of a host; none if it is not known.
func resolve(ctx context.Context, host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil // initiators look it up, not we
	}
	for i := range addresses {
		addresses[i] = addresses[i].Unmap()
	}
	return addresses
}

// ofThisMachine reports whether an address is one of this machine's.
func ofThisMachine(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	networks, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, n := range networks {
		if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr() == a.WithZone("") {
			return true
		}
	}
	return false
}
