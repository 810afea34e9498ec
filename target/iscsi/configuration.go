package iscsi

import (
	"fmt"
	"net"
	"slices"
)

// configuration is what a server was configured with. It is immutable: a change replaces it
// as a whole (Server.conf), so that a login that loads it once sees one state.
type configuration struct {
	options Options
	targets []*target
	// portals are those that are served.
	portals []Portal
}

// newConfiguration returns a configuration without portals, or an error for the first
// invalid option or target.
func newConfiguration(o Options, targets []TargetConfig) (*configuration, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &configuration{options: o}
	for _, t := range targets {
		switch {
		case !validName(t.Name) || t.Name != normalName(t.Name):
			return nil, fmt.Errorf("iscsi: target %q: not an iSCSI name in lower case", t.Name)
		case c.target(t.Name) != nil:
			return nil, fmt.Errorf("iscsi: duplicate target %s", t.Name)
		case t.DeviceServer == nil && t.Director == nil:
			return nil, fmt.Errorf("iscsi: target %s: no device server", t.Name)
		}
		c.targets = append(c.targets, newTarget(t))
	}
	return c, nil
}

// target returns the target with the given name, or nil.
func (c *configuration) target(name string) *target {
	for _, t := range c.targets {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// portal returns the portal of a listener, if it is served.
func (c *configuration) portal(l net.Listener) (p Portal, ok bool) {
	if i := slices.IndexFunc(c.portals, func(p Portal) bool { return p.Listener == l }); i >= 0 {
		return c.portals[i], true
	}
	return Portal{}, false
}

// portalOf returns the portal of a connection, if it is served: for one of another process,
// that at its address.
func (c *configuration) portalOf(o *conn) (found Portal, ok bool) {
	if o.at.Listener != nil {
		return c.portal(o.at.Listener)
	}
	here, isTCP := addrPort(o.nc.LocalAddr())
	if !isTCP {
		return Portal{}, false
	}
	for _, p := range c.portals {
		switch a, _ := addrPort(p.Addr()); {
		case a == here:
			return p, true
		case a.Port() == here.Port() && a.Addr().IsUnspecified():
			found, ok = p, true
		}
	}
	return found, ok
}

// portalsOf returns the portals of a target.
func (c *configuration) portalsOf(t *target) []Portal {
	return slices.DeleteFunc(slices.Clone(c.portals), func(p Portal) bool { return !t.inGroup(p.Group) })
}

// options returns the current options. Log, Pool, Settler and Owned are fields of the
// server instead.
func (srv *Server) options() *Options { return &srv.conf.Load().options }

// addPortal begins to serve a portal. The caller holds mu.
func (srv *Server) addPortal(p Portal) {
	next := *srv.conf.Load()
	next.portals = append(slices.Clone(next.portals), p)
	srv.conf.Store(&next)
}

// removePortal reports whether the portal of a listener was served until now. The caller
// holds mu.
func (srv *Server) removePortal(l net.Listener) (served bool) {
	next := *srv.conf.Load()
	if _, served = next.portal(l); served {
		next.portals = slices.DeleteFunc(slices.Clone(next.portals), func(p Portal) bool { return p.Listener == l })
		srv.conf.Store(&next)
	}
	return served
}
