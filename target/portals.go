package target

import (
	"context"
	"errors"
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
	cfg   *conf.Config
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

// bind binds the portals, which do not accept connections yet. If none can be bound, it
// returns conf.Problems.
func (ps *portals) bind(ctx context.Context, log *logrus.Entry) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var problems conf.Problems
	for i, p := range ps.cfg.Portals {
		l, err := ps.held.Listen(ctx, p.Network(), p.String())
		if err != nil {
			problem := portalProblem(ps.cfg, i, err)
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
// calls serve with each.
func (ps *portals) bindMissing(ctx context.Context, log *logrus.Entry, serve func(portal)) {
	tick := time.NewTicker(ps.retry)
	defer tick.Stop()
	for len(ps.missing()) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, p := range ps.cfg.Portals {
			if p, ok := ps.bindAgain(ctx, i, p); ok {
				log.WithField("portal", p.String()).Info("portal bound")
				serve(p)
			}
		}
	}
}

// bindAgain binds portal i if it is not bound, and reports success.
func (ps *portals) bindAgain(ctx context.Context, i int, c conf.Portal) (p portal, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.list[i].listener != nil {
		return portal{}, false
	}
	l, err := ps.held.Listen(ctx, c.Network(), c.String())
	if err != nil {
		ps.list[i].err = portalProblem(ps.cfg, i, err)
		return portal{}, false
	}
	ps.list[i].listener, ps.list[i].err = l, nil
	return ps.list[i], true
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

// portalProblem returns, in one line, why portal i cannot be bound.
func portalProblem(cfg *conf.Config, i int, err error) conf.Problem {
	p, key := cfg.Portals[i], conf.PortalKey(i)
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return cfg.Problem(key, "%s is in use by another program; stop it, or choose another port", p)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return cfg.Problem(key, "%s is not an address of this machine; choose one that `ip address` lists, or 0.0.0.0", p)
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return cfg.Problem(key, "%s cannot be used: this machine has no IPv6; take the portal out", p)
	case errors.Is(err, syscall.EACCES):
		return cfg.Problem(key, "%s may not be used by this user; choose a port above 1023", p)
	case errors.As(err, &dns):
		return cfg.Problem(key, "%s cannot be resolved (%v); write an IP address", p.Host, dns.Err)
	default:
		return cfg.Problem(key, "cannot listen on %s: %v", p, err)
	}
}

// portGroups returns the target port groups of t: one for each of its portal groups,
// ascending, with their numbers.
func (s *Service) portGroups(t *conf.Target, numbers *portNumbers) ([]scsi.PortGroup, error) {
	var tags []uint16
	for _, p := range s.cfg.Portals {
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
	bound := s.portals.bound()
	for _, t := range s.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			lun := LUN{Target: t.Name, Number: l.Number, Medium: l.Medium(), ReadOnly: l.ReadOnly, Over: s.objectsOf(l)}
			if unit := s.units[l.Medium()]; unit != nil {
				lun.Size, lun.ReadOnly = unit.Volume().Size(), unit.ReadOnly()
			} else if err := s.media.leftOut[l.Medium()]; err != nil {
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
