package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"odx/conf"
	"odx/target/scsi"
)

// bind binds every portal; none accepts a connection yet. On an error those
// that were bound are left in s.listeners.
func (s *Service) bind(ctx context.Context) error {
	var config net.ListenConfig
	for i, p := range s.cfg.Portals {
		l, err := config.Listen(ctx, p.Network(), p.String())
		if err != nil {
			return portalProblem(s.cfg, i, err)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// portalProblem says in one line why portal i cannot be bound.
func portalProblem(cfg *conf.Config, i int, err error) error {
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
	portals := make([]string, len(s.listeners))
	for i, l := range s.listeners {
		portals[i] = l.Addr().String()
	}
	return portals
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
	// Over are the volumes, and the files with FilePrefix, that the blocks are in.
	Over []string
	// Problem says why the LUN is not served, "" if it is.
	Problem string
}

// LUNs returns every LUN, in the order of the configuration.
func (s *Service) LUNs() []LUN {
	var luns []LUN
	for _, t := range s.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			lun := LUN{Target: t.Name, Number: l.Number, Medium: l.Medium(), ReadOnly: l.ReadOnly, Over: s.spacesOf(l)}
			if unit := s.units[l.Medium()]; unit != nil {
				lun.Size, lun.ReadOnly = unit.Volume().Size(), unit.ReadOnly()
			} else if err := s.leftOut[l.Medium()]; err != nil {
				lun.Problem = err.Error()
			}
			for i, listener := range s.listeners {
				if !t.ReachedBy(s.cfg.Portals[i]) {
					continue
				}
				lun.URLs = append(lun.URLs, "iscsi://"+reachable(listener.Addr())+"/"+t.Name+"/"+strconv.Itoa(int(l.Number)))
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
