package conf

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Portal is an address to listen on (RFC 7143 "network portal").
type Portal struct {
	// Host is an IP address without brackets, or a host name.
	Host string
	// Port is a TCP port. If 0, the system selects a free one.
	Port uint16
	// Group is the tag of the portal group (RFC 7143 4.4.1), 1 by default.
	Group uint16
	// Advertise is the address and port that discovery reports. If empty, it reports
	// the portal's own.
	Advertise string
}

// DefaultPortalGroup is the default of Portal.Group.
const DefaultPortalGroup = 1

var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// allDigits matches a host that can only be an IPv4 address, valid or not.
var allDigits = regexp.MustCompile(`^[0-9.]+$`)

// ParsePortal parses "address:port" or "[IPv6 address]:port", optionally followed by
// ",tag", the syntax of TargetAddress (RFC 7143 13.8).
func ParsePortal(text string) (Portal, error) {
	group := uint64(DefaultPortalGroup)
	if address, tag, ok := strings.Cut(text, ","); ok {
		var err error
		if group, err = strconv.ParseUint(tag, 10, 16); err != nil || group == 0 {
			return Portal{}, fmt.Errorf("%q: invalid portal group; use a number from 1 to 65535 after the comma, or omit both", text)
		}
		text = address
	}
	p, err := parseAddress(text)
	if err != nil {
		return Portal{}, err
	}
	p.Group = uint16(group)
	return p, nil
}

func parseAddress(text string) (Portal, error) {
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		if addr, err := netip.ParseAddr(text); err == nil {
			return Portal{}, fmt.Errorf("%q: missing port; use %s", text, net.JoinHostPort(addr.String(), "3260"))
		}
		return Portal{}, fmt.Errorf("%q is not an address and port; use for example 127.0.0.1:3260 or [::1]:3260", text)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return Portal{}, fmt.Errorf("%q: invalid port; use a number from 0 to 65535 after the last colon; the iSCSI default is 3260", text)
	}
	if host == "" {
		return Portal{}, fmt.Errorf("%q: missing address; use 0.0.0.0:%s for every IPv4 address or [::]:%s for every IPv6 address", text, portText, portText)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return Portal{Host: addr.Unmap().String(), Port: uint16(port)}, nil
	}
	if allDigits.MatchString(host) || !hostName.MatchString(host) || len(host) > 253 {
		return Portal{}, fmt.Errorf("%q is neither an IP address nor a host name; use for example 127.0.0.1:%s or [::1]:%s", host, portText, portText)
	}
	return Portal{Host: host, Port: uint16(port)}, nil
}

// ParseRemotePortal parses "address:port" of a portal that initiators connect to: neither the
// address nor the port is one that stands for any.
func ParseRemotePortal(text string) (Portal, error) {
	p, err := parseAddress(text)
	if err == nil && (p.Port == 0 || p.unspecified()) {
		err = fmt.Errorf("%q: initiators cannot connect to any address or port 0; use for example 192.0.2.7:3260", text)
	}
	return p, err
}

// String returns the address in the syntax of ParsePortal, without the group.
func (p Portal) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// Network returns the network for net.Listen. A portal with a literal address listens
// on its address family only, so that 0.0.0.0 and [::] can be bound to the same port.
func (p Portal) Network() string {
	addr, err := netip.ParseAddr(p.Host)
	switch {
	case err != nil:
		return "tcp"
	case addr.Is4():
		return "tcp4"
	default:
		return "tcp6"
	}
}

// unspecified reports whether the portal is the unspecified address.
func (p Portal) unspecified() bool {
	addr, err := netip.ParseAddr(p.Host)
	return err == nil && addr.IsUnspecified()
}

// overlaps reports whether p and q cannot both be bound.
func (p Portal) overlaps(q Portal) bool {
	if p.Port != q.Port || p.Port == 0 {
		return false
	}
	if p.Host == q.Host {
		return true
	}
	a, errA := netip.ParseAddr(p.Host)
	b, errB := netip.ParseAddr(q.Host)
	return errA == nil && errB == nil && a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
}
