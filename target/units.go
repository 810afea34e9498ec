package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"odx/admin"
	"odx/conf"
	"odx/offload/view"
	"odx/target/copymgr"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// makeTargets creates missing media and the device server of every target. LUNs on one
// medium share a logical unit.
func (s *Service) makeTargets(ctx context.Context) ([]iscsi.TargetConfig, error) {
	s.units = map[string]*scsi.LogicalUnit{}
	s.copies = copymgr.New(s.tokens, copyRules(s.cfg), s.log)
	numbers, err := loadPortNumbers(s.store, s.log)
	if err != nil {
		return nil, err
	}
	var targets []iscsi.TargetConfig
	for _, t := range s.cfg.Targets {
		groups, err := s.portGroups(&t, numbers)
		if err != nil {
			return nil, s.cfg.Problem("targets", "%v", err)
		}
		device := scsi.NewTarget(scsi.TargetConfig{Name: t.Name, PortGroups: groups, ImplicitOnly: t.FixedPaths, Log: s.log})
		for i := range t.LUNs {
			l := &t.LUNs[i]
			lu := s.unitOf(ctx, l)
			if lu == nil {
				continue
			}
			if err := device.AddLU(l.Number, lu); err != nil {
				return nil, s.cfg.Problem(l.Key, "%v", err)
			}
		}
		targets = append(targets, iscsi.TargetConfig{Name: t.Name, PortalGroups: t.PortalGroups, Redirect: redirect(t.Redirect), DeviceServer: device})
	}
	return targets, errors.Join(s.media.checkSome(), s.storeDuplicates(), numbers.save(ctx, s.store))
}

// unitOf returns the logical unit of a LUN, which LUNs on one medium share; nil if the
// medium cannot be served.
func (s *Service) unitOf(ctx context.Context, l *conf.LUN) *scsi.LogicalUnit {
	medium := l.Medium()
	if s.units[medium] != nil || s.media.leftOut[medium] != nil {
		return s.units[medium]
	}
	lu, err := s.makeUnit(ctx, l)
	if err != nil {
		s.media.leaveOut(medium, err)
		return nil
	}
	s.units[medium] = lu
	return lu
}

// storeDuplicates disables deduplication for the volumes and files below the LUNs with
// store_duplicates, in their own entry or in an access list.
func (s *Service) storeDuplicates() error {
	for i := range s.cfg.Targets {
		t := &s.cfg.Targets[i]
		for k := range t.LUNs {
			l := &t.LUNs[k]
			if s.units[l.Medium()] == nil || !t.StoresDuplicates(l) {
				continue
			}
			for _, name := range s.objectsOf(l) {
				v, err := s.admin.Object(name)
				if err != nil {
					return err
				}
				v.StoreDuplicates(true)
			}
		}
	}
	return nil
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
func (s *Service) makeUnit(ctx context.Context, l *conf.LUN) (*scsi.LogicalUnit, error) {
	c := scsi.LUConfig{LogicalBlockLength: l.BlockSize, ReadOnly: l.ReadOnly, UnmapGranularity: l.UnmapGranularity}
	switch {
	case l.View != "":
		v, id := s.views.stack(l.View)
		if p := s.media.checkSize(l, v.Size(), nil); p != nil {
			return nil, *p
		}
		s.setView(&c, v, id)
	case l.File != "":
		d, _, err := s.views.fileDevice(ctx, fileUse{
			name: l.File, size: l.Size, sector: l.BlockSize, readOnly: l.ReadOnly,
			user: fmt.Sprintf("LUN %d (%s, line %d)", l.Number, s.cfg.File, s.cfg.Problem(l.Key, "").Line),
		})
		if err != nil {
			return nil, err
		}
		s.setView(&c, s.views.stackOver(d, l.Medium()), admin.FileUnitID(s.store, l.File))
	case l.Volume != "":
		v, err := s.media.openVolume(ctx, l)
		if err != nil {
			return nil, err
		}
		c.Volume, c.ID, c.Thin, c.Space = v, v.ID(), true, s.space.space()
		c.ReadOnly = c.ReadOnly || v.ReadOnly()
	default:
		v, err := s.media.openBacking(l.Backing, l.Size)
		if err != nil {
			return nil, err
		}
		c.Volume, c.ID = v, s.media.backingID(l.Backing)
	}
	records := admin.NewUnitRecords(s.store, c.ID)
	c.Records, c.Era, c.Volatile = records, records.InEra(s.era.id), s.cfg.WritesBack(l.View)
	c.ID = s.store.Identify(c.ID)
	lu, err := scsi.NewLogicalUnit(c)
	if err != nil {
		return nil, err
	}
	if err := s.copies.Install(lu, cmp.Or(l.View, l.Volume, l.File, l.Backing)); err != nil {
		return nil, fmt.Errorf("copy manager: %w", err)
	}
	return lu, nil
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

// stopUnits ends the background work of logical units.
func (s *Service) stopUnits() {
	ctx, cancel := context.WithTimeout(context.Background(), stopUnitsLimit)
	defer cancel()
	for medium, lu := range s.units {
		if err := lu.Close(ctx); err != nil {
			s.log.WithField("medium", medium).WithError(err).Warn("background work did not end before the stop")
		}
	}
}
