package address

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Connection is a TCP connection of a client to a server.
type Connection struct {
	Local  netip.AddrPort // of the server
	Remote netip.AddrPort // of the client
}

// ack returns a TCP segment of a connection (RFC 9293 3.1) that has nothing but an ACK, with
// numbers that are not those of the connection.
func ack(c Connection) []byte {
	const (
		words = 5 // of the header
		flag  = 0x10
	)
	b := make([]byte, words*4)
	binary.BigEndian.PutUint16(b[0:], c.Local.Port())
	binary.BigEndian.PutUint16(b[2:], c.Remote.Port())
	b[12], b[13] = words<<4, flag
	binary.BigEndian.PutUint16(b[14:], 1024) // the window
	binary.BigEndian.PutUint16(b[16:], checksum(c, b))
	return b
}

// checksum returns the checksum of a TCP segment whose field of it is 0 (RFC 9293 3.1, RFC 8200
// 8.1: the sum over the pseudo header does not depend on the version).
func checksum(c Connection, segment []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	for _, part := range [][]byte{c.Local.Addr().AsSlice(), c.Remote.Addr().AsSlice(), segment} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tickle has clients find out that their connections are gone: the client's TCP answers the ACK
// with one that has its own numbers (RFC 9293 3.10.7.4), which this machine, where no such
// connection is, answers with a reset that the client takes. Without it a client that waits for
// an answer has no reason to send, and one that sends waits for as long again as it has already
// waited. A client that has no such connection any more answers with a reset to none.
func tickle(list []Connection) error {
	var errs []error
	for _, c := range list {
		if err := send(c, ack(c)); err != nil {
			errs = append(errs, fmt.Errorf("tickle %s: %w", c.Remote, err))
		}
	}
	const shown = 3
	if len(errs) > shown {
		errs = append(errs[:shown], fmt.Errorf("%d more", len(errs)-shown))
	}
	return errors.Join(errs...)
}

// send sends a TCP segment of a connection that this machine has no socket of.
func send(c Connection, segment []byte) error {
	family, from, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: c.Local.Addr().As16()}), unix.Sockaddr(&unix.SockaddrInet6{Addr: c.Remote.Addr().As16()})
	if c.Local.Addr().Is4() != c.Remote.Addr().Is4() {
		return fmt.Errorf("the addresses of a connection are of two versions")
	}
	if c.Local.Addr().Is4() {
		family, from, to = unix.AF_INET, &unix.SockaddrInet4{Addr: c.Local.Addr().As4()}, &unix.SockaddrInet4{Addr: c.Remote.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return permission(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, from); err != nil {
		return err
	}
	return unix.Sendto(fd, segment, 0, to)
}
