package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
	"odx/initiator"
	"odx/owner"
)

// errOpen: initiators are logged in to the destination.
var errOpen = errors.New("initiators have it open and would not notice the changes")

// checkNotOpen returns errOpen with the sessions if initiators of the server of the
// store have a LUN over the object: a volume, a file of the store, or a LUN by its URL.
// Without a server, and if a is nil, nothing is open.
func checkNotOpen(ctx context.Context, a admin.Administrator, name string) error {
	url, err := initiator.ParseURL(name)
	isURL := err == nil
	if a == nil || !isURL && !inStore(name) {
		return nil
	}
	st, err := a.Status(ctx)
	if _, isServer := a.(*api.Client); errors.Is(err, admin.ErrNotRunning) && !isServer {
		return nil
	}
	if err != nil {
		return err
	}
	medium := admin.SessionLUN{Over: []string{name}}
	if isURL {
		if medium, isURL = mediumOf(ctx, &st, url); !isURL {
			return nil // a LUN of another server
		}
	}
	var who []string
	for i := range st.Sessions {
		s := &st.Sessions[i]
		for _, l := range s.LUNs {
			if l.Medium == medium.Medium || slices.ContainsFunc(l.Over, func(o string) bool { return slices.Contains(medium.Over, o) }) {
				who = append(who, fmt.Sprintf("%s from %s as LUN %d of %s", s.Initiator, strings.Join(s.Addresses, " and "), l.Number, s.Target))
			}
		}
	}
	if len(who) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w: %s; log out there first, or use --force", shown(name), errOpen, strings.Join(who, ", "))
}

// mediumOf returns what a LUN of the server, named by a URL, is stored on; false for a
// LUN of another server.
func mediumOf(ctx context.Context, st *admin.Status, u initiator.URL) (admin.SessionLUN, bool) {
	if !slices.ContainsFunc(st.Portals, func(portal string) bool { return samePortal(ctx, portal, u.Address) }) {
		return admin.SessionLUN{}, false
	}
	// With an access list that renumbers LUNs, the number depends on the initiator;
	// then the numbers of the sessions count, too.
	out, found := admin.SessionLUN{}, false
	for _, l := range st.LUNs {
		if strings.EqualFold(l.Target, u.Target) && l.Number == u.LUN {
			out.Medium, out.Over, found = l.Medium, append(out.Over, l.Over...), true
		}
	}
	for _, s := range st.Sessions {
		for _, l := range s.LUNs {
			if strings.EqualFold(s.Target, u.Target) && l.Number == u.LUN {
				out.Over, found = append(out.Over, l.Over...), true
				if out.Medium == "" {
					out.Medium = l.Medium
				}
			}
		}
	}
	return out, found
}

// samePortal reports whether an address is that of a portal of the server, or leads to
// it on this machine.
func samePortal(ctx context.Context, portal, address string) bool {
	pHost, pPort, err1 := net.SplitHostPort(portal)
	host, port, err2 := net.SplitHostPort(address)
	if err1 != nil || err2 != nil || pPort != port {
		return false
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return pHost == host
	}
	own := net.ParseIP(pHost)
	for _, ip := range ips {
		if own.Equal(ip.IP) || own.IsUnspecified() && isLocal(ip.IP) {
			return true
		}
	}
	return false
}

func isLocal(ip net.IP) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ip.IsLoopback()
	}
	return ip.IsLoopback() || slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// withServer runs a command that needs no store: do gets the server of the
// configuration's store, nil if there is none.
func withServer(cmd *cobra.Command, o *adminOptions, do administration) error {
	if o.api != "" {
		return administerRemotely(cmd, o, do)
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	cfg, err := o.load(cmd)
	if errors.Is(err, fs.ErrNotExist) && o.config == "" {
		return do(ctx, &conf.Config{}, nil)
	}
	if err != nil {
		return err
	}
	client := api.NewClient(cfg.LocalDir())
	defer client.Close()
	for end := time.Now().Add(betweenLimit); ; {
		if serves(ctx, client) {
			return ofServer(do(ctx, cfg, client))
		}
		err := unowned(ctx, cfg, func() error { return nil })
		if err == nil || errors.Is(err, fs.ErrPermission) { // of a store that others own
			return do(ctx, cfg, nil)
		}
		if !errors.Is(err, owner.ErrHeld) || time.Now().After(end) {
			return elsewhere(cfg, noAnswer(cfg.DataDir, err))
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}
