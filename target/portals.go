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
	"odx/target/scsi"
)

// portals are those of a configuration. Those that cannot be bound at the start,
// as those at an address that the machine does not have yet, are tried again while
// the others serve.
type portals struct {
	cfg   *conf.Config
	retry time.Duration

	mu   sync.Mutex // guards what follows
	list []portal   // as in the configuration
}

type portal struct {
	conf.Portal
	listener net.Listener // nil while it is not bound
	err      error        // why not
}

// portalRetry is after how long a portal that could not be bound is tried again.
const portalRetry = 5 * time.Second

// bind binds the portals; none accepts a connection yet. If none can be bound, that
// is an error, a conf.Problems.
func (ps *portals) bind(ctx context.Context, log *logrus.Entry) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var problems conf.Problems
	for i, p := range ps.cfg.Portals {
		l, err := listen(ctx, p)
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
		log.WithError(p).Error("the portal does not answer yet, and is tried again; the others serve")
	}
	return nil
}

func listen(ctx context.Context, p conf.Portal) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, p.Network(), p.String())
}

// address is where the portal listens, or is to.
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

// bindMissing tries the portals that are not bound until all are, or ctx ends, and
// has serve serve each that is.
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
				log.WithField("portal", p.String()).Info("the portal answers now")
				serve(p)
			}
		}
	}
}

// bindAgain tries portal i if it is not bound; ok says that it is now.
func (ps *portals) bindAgain(ctx context.Context, i int, c conf.Portal) (p portal, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.list[i].listener != nil {
		return portal{}, false
	}
	l, err := listen(ctx, c)
	if err != nil {
		ps.list[i].err = portalProblem(ps.cfg, i, err)
		return portal{}, false
	}
	ps.list[i].listener, ps.list[i].err = l, nil
	return ps.list[i], true
}

// close closes the listeners. The transport has closed those that it served.
func (ps *portals) close() (errs []error) {
	for _, p := range ps.bound() {
		if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errs
}

// portalProblem says in one line why portal i cannot be bound.
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

// portGroups returns the target port groups of t: one for each portal group that
// it is in, ascending, with their numbers.
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

// portStates are the states of paths as the device server names them.
var portStates = map[string]scsi.PortState{
	conf.PathOptimized:    scsi.ActiveOptimized,
	conf.PathNonOptimized: scsi.ActiveNonOptimized,
	conf.PathStandby:      scsi.Standby,
	conf.PathUnavailable:  scsi.Unavailable,
}

// Portals returns the addresses that answer, in the order of the configuration.
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

// LUN says where a logical unit can be reached.
type LUN struct {
	// Target and Number are where the configuration has it.
	Target string
	Number uint16
	// URLs names the LUN at each portal, as libiscsi and qemu write it. Portals
	// on every address are named by the loopback address.
	URLs []string
	// Medium is what the LUN's blocks live on, for example "volume src".
	Medium string
	// Size is the capacity in bytes.
	Size     int64
	ReadOnly bool
	// Over are the volumes, and the files with admin.FilePrefix, that the blocks are in.
	Over []string
	// Problem says why the LUN is not served, "" if it is.
	Problem string
}

// LUNs returns every LUN, in the order of the configuration.
func (s *Service) LUNs() []LUN {
	var luns []LUN
	bound := s.portals.bound()
	for _, t := range s.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			lun := LUN{Target: t.Name, Number: l.Number, Medium: l.Medium(), ReadOnly: l.ReadOnly, Over: s.spacesOf(l)}
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
