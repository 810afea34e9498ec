package target

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"odx/admin"
	"odx/conf"
	"odx/offload/view"
	"odx/target/copymgr"
	"odx/target/scsi"
)

// makeUnits creates the logical units of st that it has not, and missing media. LUNs on one
// medium share a logical unit. One that cannot be made is left out.
func (s *Service) makeUnits(ctx context.Context, st *state) {
	for _, l := range st.luns {
		medium := l.Medium()
		if st.units[medium] != nil || st.media.leftOut[medium] != nil {
			continue
		}
		if err := s.addUnit(ctx, st, l); err != nil {
			st.media.leaveOut(medium, err)
		}
	}
}

// addUnit creates the logical unit of a LUN.
func (s *Service) addUnit(ctx context.Context, st *state, l *conf.LUN) error {
	u, err := s.makeUnit(ctx, st, l)
	if err == nil {
		st.units[l.Medium()] = u
	}
	return err
}

// newDevice returns the device server of a target, without logical units.
func (s *Service) newDevice(name string) *scsi.Target {
	return scsi.NewTarget(scsi.TargetConfig{Name: name, Initiators: s.initiators, Log: s.log})
}

// deviceConfiguration returns what the device server of a target has.
func (s *Service) deviceConfiguration(st *state, t *conf.Target, numbers *portNumbers, replaced map[place]bool) (scsi.Configuration, error) {
	groups, err := portGroupsOf(st.cfg, t, numbers)
	if err != nil {
		return scsi.Configuration{}, st.cfg.Problem("targets", "%v", err)
	}
	c := scsi.Configuration{Units: map[uint16]*scsi.LogicalUnit{}, PortGroups: groups, ImplicitOnly: t.FixedPaths, Replaced: map[uint16]bool{}}
	for i := range t.LUNs {
		l := &t.LUNs[i]
		if lu := st.unit(l.Medium()); lu != nil {
			c.Units[l.Number] = lu
		}
		c.Replaced[l.Number] = replaced[place{t.Name, "", l.Number}]
	}
	return c, nil
}

// makeDevices creates the device servers of the targets of a service that starts.
func (s *Service) makeDevices(st *state, numbers *portNumbers, replaced map[place]bool) error {
	for i := range st.cfg.Targets {
		t := &st.cfg.Targets[i]
		c, err := s.deviceConfiguration(st, t, numbers, replaced)
		if err != nil {
			return err
		}
		device := s.newDevice(t.Name)
		device.KeepSightings(s.sightings)
		if _, err := device.Reconfigure(c); err != nil {
			return st.cfg.Problem("targets", "target %s: %v", t.Name, err)
		}
		st.devices[t.Name] = device
	}
	numbers.forget(st.cfg)
	return nil
}

// storeDuplicates disables deduplication for the volumes and files below the LUNs with
// store_duplicates, in their own entry or in an access list, and enables it for the others
// that before, which may be nil, had below LUNs.
func (s *Service) storeDuplicates(st, before *state) {
	off := map[string]bool{} // by name of the object
	if before != nil {
		for _, l := range before.luns {
			for _, name := range before.objectsOf(l) {
				off[name] = false
			}
		}
	}
	for t, l := range st.luns {
		if st.units[l.Medium()] == nil || !t.StoresDuplicates(l) {
			continue
		}
		for _, name := range st.objectsOf(l) {
			off[name] = true
		}
	}
	for name, value := range off {
		if v, err := s.admin.Object(name); err == nil { // otherwise its LUN is gone or left out
			v.StoreDuplicates(value)
		}
	}
}

// copyRules returns the copy rules of the configuration.
func copyRules(cfg *conf.Config) copymgr.Rules {
	var rules copymgr.Rules
	for _, r := range cfg.CopyRules {
		rule := copymgr.Rule{From: r.From, To: r.To, Deny: !r.Allow}
		for _, name := range r.Initiators {
			rule.Initiators = append(rule.Initiators, string(name))
		}
		rules = append(rules, rule)
	}
	return rules
}

// makeUnit creates the logical unit of l and installs the copy manager.
func (s *Service) makeUnit(ctx context.Context, st *state, l *conf.LUN) (*unit, error) {
	c := scsi.LUConfig{LogicalBlockLength: l.BlockSize, ReadOnly: l.ReadOnly, UnmapGranularity: l.UnmapGranularity}
	u := &unit{identity: l.Identity, since: time.Now()}
	as, err := s.servedAs(l)
	if err != nil {
		return nil, err
	}
	u.snapshot = as.ReadOnly
	if err := s.openMedium(ctx, st, l, u, &c); err != nil {
		return nil, err
	}
	c.ReadOnly = c.ReadOnly || u.snapshot
	if as.Identity != [16]byte{} && (as.ReadOnly || l.Identity == [16]byte{}) {
		c.ID = s.store.Identify(as.Identity)
	} else if err := s.identify(st, l, &c); err != nil {
		return nil, err
	}
	records := admin.NewUnitRecords(s.store, c.ID)
	c.Audit = s.auditOf(l)
	c.WriteThrough = st.cfg.Pool != nil
	c.Records, c.Era, c.Volatile = records, records.InEra(s.era.id), st.cfg.WritesBack(l.View)
	c.ID = s.store.Identify(c.ID)
	if u.lu, err = scsi.NewLogicalUnit(c); err != nil {
		return nil, err
	}
	if as.Away {
		u.lu.SetAway(awayState(s.moved(l)))
	}
	if err := s.copies.Install(u.lu, nameOfMedium(l)); err != nil {
		return nil, fmt.Errorf("copy manager: %w", err)
	}
	return u, nil
}

// nameOfMedium returns the name of a LUN's medium in token records and copy rules.
func nameOfMedium(l *conf.LUN) string { return cmp.Or(l.View, l.Volume, l.File, l.Backing, l.ISCSI) }

// identify gives a logical unit the identity of the configuration. c.ID is the number that
// records are stored under: what initiators see of it is Store.Identify, which is its own
// inverse. A medium whose own identity another LUN has is refused: initiators would take
// both for one disk.
func (s *Service) identify(st *state, l *conf.LUN, c *scsi.LUConfig) error {
	if l.Identity != [16]byte{} {
		for medium, u := range st.units {
			if u.lu.ID() == l.Identity && medium != l.Medium() {
				return st.cfg.Problem(l.Key+".identity", "LUN %d: it is the identity of %s, which is served; take that out of the configuration", l.Number, medium)
			}
		}
		c.ID = s.store.Identify(l.Identity)
		return nil
	}
	own := s.store.Identify(c.ID)
	for t, other := range st.luns {
		if other.Identity == own && other.Medium() != l.Medium() {
			return st.cfg.Problem(l.Key, "LUN %d: %s has the identity that LUN %d of %s has been given (line %d); give this LUN an identity of its own, for example a random one",
				l.Number, l.Medium(), other.Number, t.Name, st.cfg.Problem(other.Key+".identity", "").Line)
		}
	}
	return nil
}

// openMedium opens the medium of a LUN, and sets what of its logical unit depends on it.
func (s *Service) openMedium(ctx context.Context, st *state, l *conf.LUN, u *unit, c *scsi.LUConfig) error {
	switch {
	case l.View != "":
		u.over, u.gate = l.View, st.views.gate(l.View)
		v := view.NewStack(st.views.devices[l.View], u.gate)
		if p := st.media.checkSize(l, v.Size(), nil); p != nil {
			return *p
		}
		s.setView(c, v, st.views.identity(l.View))
	case l.File != "":
		d, _, err := st.views.fileDevice(ctx, fileUse{
			name: l.File, size: l.Size, sector: l.BlockSize, readOnly: l.ReadOnly || u.snapshot,
			user: fmt.Sprintf("LUN %d (%s, line %d)", l.Number, st.cfg.File, st.cfg.Problem(l.Key, "").Line),
		})
		if err != nil {
			return err
		}
		u.over, u.gate = l.Medium(), st.views.gate(l.Medium())
		s.setView(c, view.NewStack(d, u.gate), admin.FileUnitID(s.store, l.File))
	case l.Volume != "":
		v, err := st.media.openVolume(ctx, l)
		if err != nil {
			return err
		}
		c.Volume, c.ID, c.Thin, c.Space = v, v.ID(), true, s.space.space()
		u.snapshot = u.snapshot || v.ReadOnly()
	case l.ISCSI != "":
		d, err := st.openForeign(ctx, l)
		if err != nil {
			return err
		}
		c.Volume, c.ID, c.Thin = d.Served(), s.foreign.id(l.ISCSI), true
	default:
		v, err := st.media.openBacking(l.Medium(), l.Backing, l.Size)
		if err != nil {
			return err
		}
		c.Volume, c.ID = v, st.media.backingID(l.Backing)
	}
	return nil
}

// setView makes a view the medium of a logical unit.
func (s *Service) setView(c *scsi.LUConfig, v *view.Stack, id [16]byte) {
	c.Volume, c.ID = v, id
	if s.tokens.Engine().Shares(v) {
		c.Thin, c.Space = true, s.space.space()
	}
}

// stopUnitsLimit bounds the wait for background work of logical units.
const stopUnitsLimit = 2 * time.Second

// stopUnits ends the background work of the logical units of st that kept, which may be
// nil, does not have.
func (s *Service) stopUnits(st, kept *state) {
	ctx, cancel := context.WithTimeout(context.Background(), stopUnitsLimit)
	defer cancel()
	for medium, u := range st.units {
		if kept != nil && kept.has(u) {
			continue
		}
		if err := u.lu.Close(ctx); err != nil {
			s.log.WithField("medium", medium).WithError(err).Warn("background work of a logical unit did not end")
		}
	}
}
