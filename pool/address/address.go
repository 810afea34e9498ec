// Package address adds IP addresses to network interfaces of this machine for as long as it
// owns a store, and announces them, so that clients of the owner before find this one under the
// same address.
//
// Addresses are added with a preferred lifetime of 0 (RFC 4862 5.5.4). IPv6 does not choose
// such an address for connections that this machine begins, and of both versions it is how an
// address that a process left behind differs from one of the machine's own, which is never
// removed. IPv6 addresses skip duplicate address detection, which would take a second, and
// fail while the machine of the owner before still has the address.
//
// Safety does not depend on any of this: two machines that have the address are two servers of
// which one has lost the store, and acknowledges nothing.
package address

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"odx/conf"
)

// ErrPermission: this process may not change addresses.
var ErrPermission = errors.New("it needs the capabilities CAP_NET_ADMIN and CAP_NET_RAW")

// Check returns why this process cannot have a list of addresses, or nil.
func Check(list []conf.OwnerAddress) error {
	if len(list) == 0 {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capabilities of this process: %w", err)
	}
	const need = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	if data[0].Effective&need != need {
		return fmt.Errorf("%s cannot be added to %s: %w", list[0].Prefix.Addr(), list[0].Interface, ErrPermission)
	}
	for _, a := range list {
		if _, err := netlink.LinkByName(a.Interface); err != nil {
			return fmt.Errorf("network interface %s: %w", a.Interface, err)
		}
	}
	return nil
}

// Remove removes addresses that a process has added and left behind. One of the machine's own
// is an error.
func Remove(list []conf.OwnerAddress) error {
	var errs []error
	for _, a := range list {
		if err := remove(a); err != nil {
			errs = append(errs, fmt.Errorf("remove %s from %s: %w", a.Prefix.Addr(), a.Interface, err))
		}
	}
	return errors.Join(errs...)
}

func remove(a conf.OwnerAddress) error {
	link, there, err := find(a)
	if err != nil || there == nil {
		return err
	}
	if there.Flags&unix.IFA_F_DEPRECATED == 0 {
		return errors.New("odx has not added it: take it out of the network configuration of this machine")
	}
	if err := netlink.AddrDel(link, there); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return permission(err)
	}
	return nil
}

// find returns the interface of an address, and the address on it; nil if it is not there.
func find(a conf.OwnerAddress) (netlink.Link, *netlink.Addr, error) {
	link, err := netlink.LinkByName(a.Interface)
	if err != nil {
		return nil, nil, err
	}
	family := netlink.FAMILY_V4
	if a.Prefix.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := netlink.AddrList(link, family)
	if err != nil {
		return nil, nil, err
	}
	for i := range all {
		if ip, ok := netip.AddrFromSlice(all[i].IP); ok && ip.Unmap() == a.Prefix.Addr() {
			return link, &all[i], nil
		}
	}
	return link, nil, nil
}

// add adds an address, and returns its interface.
func add(a conf.OwnerAddress) (netlink.Link, error) {
	if err := remove(a); err != nil { // an earlier process may have left it with another length
		return nil, err
	}
	link, err := netlink.LinkByName(a.Interface)
	if err != nil {
		return nil, err
	}
	ip := a.Prefix.Addr()
	err = netlink.AddrAdd(link, &netlink.Addr{
		IPNet:    &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), ip.BitLen())},
		Flags:    unix.IFA_F_NODAD,
		ValidLft: math.MaxUint32, // without end
	})
	if errors.Is(err, unix.EEXIST) { // as after a remove in another process
		err = nil
	}
	return link, permission(err)
}

// permission adds to an error of the kernel what is missing.
func permission(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return err
}

// Owner is who owns the store.
type Owner interface {
	// Owned returns nil while this process owns the store.
	Owned() error
	// Lost is closed when it does not any more.
	Lost() <-chan struct{}
}

// Held are addresses that this machine has.
type Held struct {
	list  []conf.OwnerAddress
	owner Owner
	links []netlink.Link
	log   *logrus.Entry

	announce, end chan struct{}
	once          sync.Once
	keeping       sync.WaitGroup
	tickle        []Connection // set before announce is closed
	removed       error        // set before keeping is done
}

// Hold adds addresses. They are removed by Close, and as soon as the owner has lost the store. After
// an error none is there.
func Hold(list []conf.OwnerAddress, owner Owner, log *logrus.Entry) (*Held, error) {
	h := &Held{list: list, owner: owner, log: log, announce: make(chan struct{}), end: make(chan struct{})}
	for i, a := range list {
		link, err := add(a)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("add %s to %s: %w", a.Prefix.Addr(), a.Interface, err), Remove(list[:i]))
		}
		h.links = append(h.links, link)
	}
	h.keeping.Go(h.keep)
	return h, nil
}

// Announce has the neighbours of this machine learn that it has the addresses, several times
// and then every 10 s, and clients of the owner before that their connections are gone. It is
// called once, when connections are accepted.
func (h *Held) Announce(gone []Connection) {
	h.tickle = gone
	close(h.announce)
}

// Close removes the addresses.
func (h *Held) Close() error {
	h.once.Do(func() { close(h.end) })
	h.keeping.Wait()
	return h.removed
}

// The times between announcements. Linux takes no change of a neighbour within a second of the
// one before (neigh/locktime), and any announcement may be lost; later ones are for neighbours
// that have asked while a machine that does not answer any more still had the address.
var pauses = []time.Duration{0, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 1200 * time.Millisecond, 2 * time.Second, 5 * time.Second, 10 * time.Second}

// keep announces the addresses from Announce on, and removes them at the end.
func (h *Held) keep() {
	wait := time.NewTimer(0)
	defer wait.Stop()
	var due <-chan time.Time // nil until Announce
	announce := h.announce
	for n := 0; ; {
		select {
		case <-announce:
			announce, due = nil, wait.C
			continue
		case <-due:
			// A process that was stopped finds the time to announce before it learns that it has
			// lost the store, and clients would come to it from the owner.
			if h.owner.Owned() == nil {
				h.announceOnce(n)
				n = min(n+1, len(pauses)-1)
				wait.Reset(pauses[n])
				continue
			}
		case <-h.owner.Lost():
		case <-h.end:
		}
		if h.removed = Remove(h.list); h.removed != nil {
			h.log.WithError(h.removed).Error("address of the owner not removed")
		}
		return
	}
}

// tickles is how many of the first announcements come with ACKs for lost connections. Linux
// answers one every 500 ms (tcp_invalid_ratelimit).
const tickles = 5

// announceOnce sends announcement n. A failure is logged once for each series: later ones may
// arrive.
func (h *Held) announceOnce(n int) {
	var errs []error
	for i, a := range h.list {
		if err := announce(h.links[i], a.Prefix.Addr()); err != nil {
			errs = append(errs, fmt.Errorf("announce %s on %s: %w", a.Prefix.Addr(), a.Interface, err))
		}
	}
	if n < tickles {
		errs = append(errs, tickle(h.tickle))
	}
	if err := errors.Join(errs...); err != nil && n == 0 {
		h.log.WithError(err).Warn("address of the owner not announced; trying again")
	}
}
