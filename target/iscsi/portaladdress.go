package iscsi

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// portalAddresses returns the TargetAddress values of portals for an initiator that is
// connected to address local of portal at, which it lists first. It lists only portals
// that the initiator can probably reach: those of its address family, unless there is
// none.
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

// addressFor returns the address of a portal for an initiator that is connected to here of
// portal at, or "" if the initiator cannot reach the portal. reached is false if the
// address is of another family.
func (p *Portal) addressFor(at Portal, here netip.AddrPort) (address string, reached bool) {
	a, ok := addrPort(p.Addr())
	switch {
	case !ok:
		return "", false
	case p.Listener == at.Listener:
		return here.String(), true
	case a.Addr().IsUnspecified():
		// It listens on every address of its family, of which only here is known.
		if a.Addr().Is4() != here.Addr().Is4() {
			return "", false
		}
		return netip.AddrPortFrom(here.Addr(), a.Port()).String(), true
	case a.Addr().IsLoopback() && !here.Addr().IsLoopback(), a.Addr().IsLinkLocalUnicast() && !here.Addr().IsLinkLocalUnicast():
		return "", false
	}
	return a.String(), a.Addr().Is4() == here.Addr().Is4()
}

// sameFamily reports whether an advertised address may be of the family of here. A host
// name may.
func sameFamily(address string, here netip.AddrPort) bool {
	a, err := netip.ParseAddrPort(address)
	return err != nil || !here.IsValid() || a.Addr().Unmap().Is4() == here.Addr().Is4()
}

// addrPort returns a TCP address in the form of TargetAddress: an IPv4-mapped IPv6 address
// becomes IPv4, and the zone, which has no meaning to the initiator, is removed.
func addrPort(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port()), true
}
