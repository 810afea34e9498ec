package target

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"odx/conf"
)

// resolveLimit bounds the look-up of host names in redirects.
const resolveLimit = 2 * time.Second

// checkRedirects returns an error for targets that redirect initiators to this server
// itself, which would redirect them again. It is called after the portals are bound.
func checkRedirects(ctx context.Context, cfg *conf.Config, own []portal) error {
	var problems conf.Problems
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		if t.Redirect == nil {
			continue
		}
		if own := ownPortal(ctx, t.Redirect.To, own); own != "" {
			problems = append(problems, cfg.Problem("targets["+strconv.Itoa(i)+"].redirect.to",
				"%s is a portal of this server (%s), which would redirect initiators again; write the address of another server", t.Redirect.To, own))
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// ownPortal returns the portal of own, this server's, at an address, empty if there is none or
// the address cannot be resolved.
func ownPortal(ctx context.Context, to conf.Portal, own []portal) string {
	addresses := resolve(ctx, to.Host)
	for _, p := range own {
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
		return nil // initiators look it up themselves
	}
	for i := range addresses {
		addresses[i] = addresses[i].Unmap()
	}
	return addresses
}

// ofThisMachine reports whether this machine has an address.
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
