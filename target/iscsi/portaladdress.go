package iscsi

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// portalAddresses lists portals as TargetAddress values for an initiator whose
// connection came in by the portal at, at the address local: the one that it came
// in by first. Only those are listed that it can reach, as far as is known: of
// the address family that it uses, unless there is none of that.
func portalAddresses(portals []Portal, at Portal, local net.Addr) []string {
	here, isTCP := addrPort(local)
	var list, others []string
	for _, p := range portals {
		address, reached := p.Advertise, true
		switch {
		case address != "":
			reached = sameFamily(address, here)
		case isTCP:
			address, reached = p.addressFor(at, here)
		default:
			address = p.Addr().String()
		}
		if address == "" {
			continue
		}
		value := address + "," + strconv.Itoa(int(p.Group))
		switch {
		case slices.Contains(list, value):
		case !reached:
			others = append(others, value)
		case p.Listener == at.Listener || isTCP && address == here.String():
			list = slices.Insert(list, 0, value)
		default:
			list = append(list, value)
		}
	}
	if list == nil {
		return others
	}
	return list
}

// addressFor returns the address of a portal that is reported to an initiator that has
// reached here by the portal at; empty for one that it cannot reach. reached is
// false where it is of another family.
func (p *Portal) addressFor(at Portal, here netip.AddrPort) (address string, reached bool) {
	a, ok := addrPort(p.Addr())
	switch {
	case !ok:
		return "", false
	case p.Listener == at.Listener:
		return here.String(), true
	case a.Addr().IsUnspecified():
		// It listens on every address of its family, of which one is known.
		if a.Addr().Is4() != here.Addr().Is4() {
			return "", false
		}
		return netip.AddrPortFrom(here.Addr(), a.Port()).String(), true
	case a.Addr().IsLoopback() && !here.Addr().IsLoopback(), a.Addr().IsLinkLocalUnicast() && !here.Addr().IsLinkLocalUnicast():
		return "", false
	}
	return a.String(), a.Addr().Is4() == here.Addr().Is4()
}

// sameFamily reports whether an advertised address can be of the family of here: a
// host name can.
func sameFamily(address string, here netip.AddrPort) bool {
	a, err := netip.ParseAddrPort(address)
	return err != nil || !here.IsValid() || a.Addr().Unmap().Is4() == here.Addr().Is4()
}

// addrPort returns a TCP address in the form it has in TargetAddress: an IPv4
// address that came in over an IPv6 socket is an IPv4 address, and the zone,
// which means nothing to the initiator, is left out.
func addrPort(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port()), true
}
