package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/conf"
	"odx/standby"
	"odx/target/scsi"
)

// portals are the portals of a configuration. Those that cannot be bound at the start,
// for lack of their address for example, are retried while the others serve.
type portals struct {
	retry time.Duration
	held  *standby.Held // sockets of the server before this one; may be nil

	mu   sync.Mutex // guards what follows
	list []portal   // as in the configuration
}

type portal struct {
	conf.Portal
	listener net.Listener // nil while it is not bound
	err      error        // why not
}

// portalRetry is the interval of attempts to bind a portal.
const portalRetry = 5 * time.Second

// bind binds the portals of a configuration, which do not accept connections yet. If none
// can be bound, it returns conf.Problems.
func (ps *portals) bind(ctx context.Context, cfg *conf.Config, log *logrus.Entry) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var problems conf.Problems
	for i, p := range cfg.Portals {
		l, err := ps.held.Listen(ctx, p.Network(), p.String())
		if err != nil {
			problem := portalProblem(cfg, i, err)
			problems = append(problems, problem)
			err = problem
		}
		ps.list = append(ps.list, portal{p, l, err})
	}
	if len(problems) == len(ps.list) {
		return problems
	}
	for _, p := range problems {
		log.WithError(p).Error("portal not bound; retrying")
	}
	return nil
}

// address is the address of the portal, bound or not.
func (p *portal) address() string {
	if p.listener == nil {
		return p.String()
	}
	return p.listener.Addr().String()
}

// all returns the portals, in the order of the configuration.
func (ps *portals) all() []portal {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.Clone(ps.list)
}

// bound returns the portals that are bound.
func (ps *portals) bound() []portal {
	return slices.DeleteFunc(ps.all(), func(p portal) bool { return p.listener == nil })
}

// missing returns the portals that are not bound.
func (ps *portals) missing() []portal {
	return slices.DeleteFunc(ps.all(), func(p portal) bool { return p.listener != nil })
}

// bindMissing retries the portals that are not bound until all are, or ctx ends, and
// calls offer, which must not use the portals, and serve with each. A reload adds none that
// is not bound.
func (ps *portals) bindMissing(ctx context.Context, log *logrus.Entry, offer, serve func(portal)) {
	tick := time.NewTicker(ps.retry)
	defer tick.Stop()
	for len(ps.missing()) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range ps.missing() {
			if p, ok := ps.bindAgain(ctx, p.Portal, offer); ok {
				log.WithField("portal", p.String()).Info("portal bound")
				serve(p)
			}
		}
	}
}

// bindAgain binds and offers a portal if it is in the list and not bound, and reports success.
func (ps *portals) bindAgain(ctx context.Context, c conf.Portal, offer func(portal)) (p portal, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	i := slices.IndexFunc(ps.list, func(p portal) bool { return p.listener == nil && p.Portal == c })
	if i < 0 {
		return portal{}, false
	}
	l, err := ps.held.Listen(ctx, c.Network(), c.String())
	if err != nil {
		ps.list[i].err = bindProblem(c, err)
		return portal{}, false
	}
	ps.list[i].listener, ps.list[i].err = l, nil
	offer(ps.list[i])
	return ps.list[i], true
}

// has reports whether a listener is that of a portal.
func (ps *portals) has(p portal) bool {
	return slices.ContainsFunc(ps.all(), func(own portal) bool { return own.listener == p.listener })
}

// close closes the listeners that the transport does not serve.
func (ps *portals) close() (errs []error) {
	for _, p := range ps.bound() {
		if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errs
}

// next is the list of portals of a configuration that is to be applied.
type nextPortals struct {
	list        []portal
	bound, left []portal // those that are new, and those that are not in list
}

// prepare binds the portals of a configuration that are new. An error is conf.Problems;
// nothing is bound then.
func (ps *portals) prepare(ctx context.Context, cfg *conf.Config) (*nextPortals, error) {
	n := &nextPortals{left: ps.all()}
	var problems conf.Problems
	var added []int
	for i, p := range cfg.Portals {
		k := slices.IndexFunc(n.left, func(old portal) bool { return old.Network() == p.Network() && old.String() == p.String() })
		if k < 0 {
			n.list, added = append(n.list, portal{Portal: p}), append(added, i)
			continue
		}
		n.list = append(n.list, portal{p, n.left[k].listener, n.left[k].err})
		n.left = slices.Delete(n.left, k, k+1)
	}
	for _, i := range added {
		p := &n.list[i]
		if p.listener, p.err = ps.held.Listen(ctx, p.Network(), p.String()); p.err != nil {
			problems = append(problems, n.problem(cfg, i, p.err))
			continue
		}
		n.bound = append(n.bound, *p)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems, n.undo())
	}
	return n, nil
}

// problem is portalProblem for a portal that is new in a reload.
func (n *nextPortals) problem(cfg *conf.Config, i int, err error) conf.Problem {
	if errors.Is(err, syscall.EADDRINUSE) {
		for _, old := range n.left {
			if old.Port == cfg.Portals[i].Port {
				return cfg.Problem(conf.PortalKey(i), "%s cannot be bound while %s is, which leaves with this reload; take that out with one reload, and add this one with the next", cfg.Portals[i], old)
			}
		}
	}
	return portalProblem(cfg, i, err)
}

// undo closes what prepare has bound.
func (n *nextPortals) undo() error {
	var errs []error
	for _, p := range n.bound {
		errs = append(errs, p.listener.Close())
	}
	return errors.Join(errs...)
}

// commit makes n the portals. A portal that was bound in the meantime stays bound.
func (ps *portals) commit(n *nextPortals) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for i := range n.list {
		p := &n.list[i]
		if p.listener != nil {
			continue
		}
		if k := slices.IndexFunc(ps.list, func(old portal) bool { return old.Network() == p.Network() && old.String() == p.String() }); k >= 0 {
			p.listener, p.err = ps.list[k].listener, ps.list[k].err
		}
	}
	for i := range n.left {
		if k := slices.IndexFunc(ps.list, func(old portal) bool { return old.Portal == n.left[i].Portal }); k >= 0 {
			n.left[i].listener = ps.list[k].listener
		}
	}
	ps.list = n.list
}

// portalProblem returns, in one line, why portal i cannot be bound.
func portalProblem(cfg *conf.Config, i int, err error) conf.Problem {
	return cfg.Problem(conf.PortalKey(i), "%v", bindProblem(cfg.Portals[i], err))
}

// bindProblem returns, in one line, why a portal cannot be bound.
func bindProblem(p conf.Portal, err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another program; stop it, or choose another port", p)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine; choose one that `ip address` lists, or 0.0.0.0", p)
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return fmt.Errorf("%s cannot be used: this machine has no IPv6; take the portal out", p)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s may not be used by this user; choose a port above 1023", p)
	case errors.As(err, &dns):
		return fmt.Errorf("%s cannot be resolved (%v); write an IP address", p.Host, dns.Err)
	default:
		return fmt.Errorf("cannot listen on %s: %v", p, err)
	}
}

// portGroupsOf returns the target port groups of t: one for each of its portal groups,
// ascending, with their numbers.
func portGroupsOf(cfg *conf.Config, t *conf.Target, numbers *portNumbers) ([]scsi.PortGroup, error) {
	var tags []uint16
	for _, p := range cfg.Portals {
		if t.ReachedBy(p) {
			tags = append(tags, p.Group)
		}
	}
	slices.Sort(tags)
	var groups []scsi.PortGroup
	for _, tag := range slices.Compact(tags) {
		number, err := numbers.of(t.Name, tag)
		if err != nil {
			return nil, err
		}
		g := scsi.PortGroup{Tag: tag, ID: number}
		if i := slices.IndexFunc(t.Paths, func(p conf.Path) bool { return p.Group == tag }); i >= 0 {
			g.State, g.Preferred = portStates[t.Paths[i].State], t.Paths[i].Preferred
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// portStates maps the configuration's names of path states to the device server's.
var portStates = map[string]scsi.PortState{
	conf.PathOptimized:    scsi.ActiveOptimized,
	conf.PathNonOptimized: scsi.ActiveNonOptimized,
	conf.PathStandby:      scsi.Standby,
	conf.PathUnavailable:  scsi.Unavailable,
}

// Portals returns the bound addresses, in the order of the configuration.
func (s *Service) Portals() []string {
	list := []string{}
	for _, p := range s.portals.bound() {
		list = append(list, p.address())
	}
	return list
}

// MissingPortals returns the portals that could not be bound yet, in the order of
// the configuration.
func (s *Service) MissingPortals() []admin.MissingPortal {
	var list []admin.MissingPortal
	for _, p := range s.portals.missing() {
		list = append(list, admin.MissingPortal{Address: p.String(), Problem: p.err.Error()})
	}
	return list
}

// LUN describes where a logical unit can be reached.
type LUN struct {
	// Target and Number are its place in the configuration.
	Target string
	Number uint16
	// URLs are the URLs of the LUN at each portal, for libiscsi and qemu. A wildcard
	// address is replaced by the loopback address.
	URLs []string
	// Medium is what the LUN's blocks are stored on, for example "volume src".
	Medium string
	// Size is the capacity in bytes.
	Size     int64
	ReadOnly bool
	// Over are the volumes, and the files with admin.FilePrefix, that hold the blocks.
	Over []string
	// Problem is why the LUN is not served, "" if it is served.
	Problem string
}

// LUNs returns every LUN, in the order of the configuration.
func (s *Service) LUNs() []LUN {
	var luns []LUN
	bound, st := s.portals.bound(), s.state.Load()
	for t, l := range st.luns {
		lun := LUN{Target: t.Name, Number: l.Number, Medium: l.Medium(), ReadOnly: l.ReadOnly, Over: st.objectsOf(l)}
		if lu := st.unit(l.Medium()); lu != nil {
			lun.Size, lun.ReadOnly = lu.Volume().Size(), lu.ReadOnly()
		} else if err := st.media.leftOut[l.Medium()]; err != nil {
			lun.Problem = err.Error()
		}
		for _, p := range bound {
			if !t.ReachedBy(p.Portal) {
				continue
			}
			lun.URLs = append(lun.URLs, "iscsi://"+reachable(p.listener.Addr())+"/"+t.Name+"/"+strconv.Itoa(int(l.Number)))
		}
		luns = append(luns, lun)
	}
	return luns
}

// reachable returns an address that a client on this machine can connect to.
func reachable(addr net.Addr) string {
	a, err := netip.ParseAddrPort(addr.String())
	if err != nil || !a.Addr().IsUnspecified() {
		return addr.String()
	}
	loopback := netip.IPv6Loopback()
	if a.Addr().Is4() {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(loopback, a.Port()).String()
}
