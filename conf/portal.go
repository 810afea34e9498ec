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
	// Port is a TCP port; 0 lets the system choose a free one.
	Port uint16
	// Group is the tag of the portal group (RFC 7143 4.4.1) that the portal is
	// in, 1 unless the file says otherwise.
	Group uint16
	// Advertise is the address, with a port, that discovery reports instead; empty
	// for the portal's own.
	Advertise string
}

// DefaultPortalGroup is the tag of portals for which none is given.
const DefaultPortalGroup = 1

var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// allDigits matches what is meant as an IPv4 address, right or wrong.
var allDigits = regexp.MustCompile(`^[0-9.]+$`)

// ParsePortal reads "address:port" or "[IPv6 address]:port", either with ",tag"
// behind it, as TargetAddress is written (RFC 7143 13.8).
func ParsePortal(text string) (Portal, error) {
	group := uint64(DefaultPortalGroup)
	if address, tag, ok := strings.Cut(text, ","); ok {
		var err error
		if group, err = strconv.ParseUint(tag, 10, 16); err != nil || group == 0 {
			return Portal{}, fmt.Errorf("%q has no valid portal group; write a number from 1 to 65535 after the comma, or leave both out", text)
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
			return Portal{}, fmt.Errorf("%q has no port; write %s", text, net.JoinHostPort(addr.String(), "3260"))
		}
		return Portal{}, fmt.Errorf("%q is not an address and port; write for example 127.0.0.1:3260 or [::1]:3260", text)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return Portal{}, fmt.Errorf("%q has no valid port; write a number from 0 to 65535 after the last colon, iSCSI's own is 3260", text)
	}
	if host == "" {
		return Portal{}, fmt.Errorf("%q has no address; write 0.0.0.0:%s for every IPv4 address or [::]:%s for every IPv6 address", text, portText, portText)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return Portal{Host: addr.Unmap().String(), Port: uint16(port)}, nil
	}
	if allDigits.MatchString(host) || !hostName.MatchString(host) || len(host) > 253 {
		return Portal{}, fmt.Errorf("%q is neither an IP address nor a host name; write for example 127.0.0.1:%s or [::1]:%s", host, portText, portText)
	}
	return Portal{Host: host, Port: uint16(port)}, nil
}

// String returns the address as ParsePortal reads it, without the group.
func (p Portal) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// Network returns the network for net.Listen: a portal with a literal address
// listens on that address family alone, so that 0.0.0.0 and [::] stand side by side.
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

// unspecified reports whether the portal is on every address of a family.
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
