package address

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// announce sends what has neighbours on a link send to this machine what is for an address.
func announce(link netlink.Link, a netip.Addr) error {
	hardware := link.Attrs().HardwareAddr
	if len(hardware) == 0 {
		return nil // a link without neighbours
	}
	if a.Is4() {
		if len(hardware) != 6 {
			return fmt.Errorf("a hardware address of %d bytes", len(hardware))
		}
		return announce4(link.Attrs().Index, hardware, a)
	}
	return announce6(link.Attrs().Index, hardware, a)
}

// The operations of ARP (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

// arp returns an ARP packet that announces an address (RFC 5227 2.3): its sender and its target
// have it.
func arp(operation uint16, hardware []byte, a netip.Addr) []byte {
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint16(b, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, operation)
	b = append(b, hardware...)
	b = append(b, a.AsSlice()...)
	if operation == arpReply {
		b = append(b, hardware...)
	} else {
		b = append(b, make([]byte, 6)...)
	}
	return append(b, a.AsSlice()...)
}

// announce4 broadcasts gratuitous ARP, as a request and as a reply: some neighbours take just
// one of them.
func announce4(index int, hardware []byte, a netip.Addr) error {
	protocol := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ARP >> 8, unix.ETH_P_ARP & 0xff})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // receives nothing
	if err != nil {
		return permission(err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for _, operation := range []uint16{arpRequest, arpReply} {
		if err := unix.Sendto(fd, arp(operation, hardware, a), 0, to); err != nil {
			return err
		}
	}
	return nil
}

// advertisement returns an unsolicited neighbour advertisement (RFC 4861 4.4, 7.2.6) that
// replaces what neighbours know. The kernel adds the checksum.
func advertisement(hardware []byte, a netip.Addr) []byte {
	const override = 0x20
	b := append([]byte{136, 0, 0, 0, override, 0, 0, 0}, a.AsSlice()...)
	option := append([]byte{2, 0}, hardware...) // target link-layer address
	for len(option)%8 != 0 {
		option = append(option, 0)
	}
	option[1] = byte(len(option) / 8)
	return append(b, option...)
}

// announce6 sends an unsolicited neighbour advertisement to all nodes of a link.
func announce6(index int, hardware []byte, a netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return permission(err)
	}
	defer unix.Close(fd)
	for option, value := range map[int]int{
		unix.IPV6_MULTICAST_HOPS: 255, // a receiver drops others
		unix.IPV6_MULTICAST_IF:   index,
	} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option, value); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: a.As16()}); err != nil {
		return err
	}
	allNodes := netip.MustParseAddr("ff02::1")
	return unix.Sendto(fd, advertisement(hardware, a), 0, &unix.SockaddrInet6{Addr: allNodes.As16(), ZoneId: uint32(index)})
}
