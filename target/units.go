package target

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"odx/backstore"
	"odx/backstore/gotgtbs"
	"odx/conf"
	"odx/target/copymgr"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// checkMedia compares every LUN with the volume or the file that it names, and
// changes nothing.
func (s *Service) checkMedia() error {
	var problems conf.Problems
	seen := map[string]bool{}
	for _, t := range s.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			if seen[l.Medium()] {
				continue
			}
			seen[l.Medium()] = true
			size, err := s.existingSize(l)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, backstore.ErrNotFound) {
				if l.Size == 0 {
					problems = append(problems, s.cfg.Problem(l.Key+".size", "LUN %d: %s does not exist; give the size to make it with", l.Number, l.Medium()))
				}
				continue
			}
			if p := s.checkSize(l, size, err); p != nil {
				problems = append(problems, *p)
			}
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// existingSize returns the size in bytes of what l names.
func (s *Service) existingSize(l *conf.LUN) (int64, error) {
	if l.Volume != "" {
		v, err := s.store.Volume(l.Volume)
		if err != nil {
			return 0, err
		}
		return v.Size(), nil
	}
	info, err := os.Stat(l.Backing)
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("it is not a regular file")
	}
	return info.Size(), nil
}

// checkSize says what is wrong with l, whose medium has the given size or
// could not be looked at because of err; nil when nothing is.
func (s *Service) checkSize(l *conf.LUN, size int64, err error) *conf.Problem {
	var p conf.Problem
	switch {
	case err != nil:
		p = s.cfg.Problem(l.Key, "LUN %d: %s cannot be used: %v", l.Number, l.Medium(), err)
	case l.Size != 0 && l.Size != size:
		p = s.cfg.Problem(l.Key+".size", "LUN %d: %s has %s, not %s; nothing is resized by itself: %swrite its size, leave size out, or name another volume",
			l.Number, l.Medium(), conf.FormatSize(size), conf.FormatSize(l.Size), growHint(l, size))
	case size == 0 || size%int64(l.BlockSize) != 0:
		p = s.cfg.Problem(l.Key+".block_size", "LUN %d: the size of %s, %d bytes, is not a positive multiple of the block size %d", l.Number, l.Medium(), size, l.BlockSize)
	default:
		return nil
	}
	return &p
}

// growHint says how a volume gets the size that the configuration gives, if it
// can be grown to it.
func growHint(l *conf.LUN, size int64) string {
	if l.Volume == "" || l.Size < size {
		return ""
	}
	return fmt.Sprintf("grow it with `odx volume resize %s %s`, ", l.Volume, conf.FormatSize(l.Size))
}

// makeTargets makes what the configuration names and does not exist, and the
// device server of every target. LUNs on one medium share a logical unit.
func (s *Service) makeTargets(ctx context.Context) ([]iscsi.TargetConfig, error) {
	s.units = map[string]*scsi.LogicalUnit{}
	s.copies = copymgr.New(s.tokens, copyRules(s.cfg), s.log)
	var targets []iscsi.TargetConfig
	for _, t := range s.cfg.Targets {
		device := scsi.NewTarget(scsi.TargetConfig{Name: t.Name, PortGroups: s.portGroups(&t), Log: s.log})
		for i := range t.LUNs {
			l := &t.LUNs[i]
			lu := s.units[l.Medium()]
			if lu == nil {
				var err error
				if lu, err = s.makeUnit(ctx, l); err != nil {
					return nil, s.cfg.Problem(l.Key, "LUN %d: %v", l.Number, err)
				}
				s.units[l.Medium()] = lu
			}
			if err := device.AddLU(l.Number, lu); err != nil {
				return nil, s.cfg.Problem(l.Key, "%v", err)
			}
		}
		targets = append(targets, iscsi.TargetConfig{Name: t.Name, PortalGroups: t.PortalGroups, Redirect: redirect(t.Redirect), DeviceServer: device})
	}
	return targets, nil
}

// copyRules returns what the configuration says about who copies what.
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

// makeUnit makes the logical unit of l, with the copy manager on it.
func (s *Service) makeUnit(ctx context.Context, l *conf.LUN) (*scsi.LogicalUnit, error) {
	c := scsi.LUConfig{LogicalBlockLength: l.BlockSize, ReadOnly: l.ReadOnly}
	if l.Volume != "" {
		v, err := s.openVolume(ctx, l)
		if err != nil {
			return nil, err
		}
		c.Volume, c.ID, c.Thin, c.Space = v, v.ID(), true, s.space.space()
		c.ReadOnly = c.ReadOnly || v.ReadOnly()
	} else {
		v, err := s.openBacking(l)
		if err != nil {
			return nil, err
		}
		c.Volume, c.ID = v, s.backingID(l.Backing)
	}
	c.Records = newUnitRecords(s.store, c.ID)
	lu, err := scsi.NewLogicalUnit(c)
	if err != nil {
		return nil, err
	}
	if err := s.copies.Install(lu, cmp.Or(l.Volume, l.Backing)); err != nil {
		return nil, fmt.Errorf("copy manager: %w", err)
	}
	return lu, nil
}

// openVolume returns the volume of l, and makes it when it is missing.
func (s *Service) openVolume(ctx context.Context, l *conf.LUN) (*backstore.Volume, error) {
	v, err := s.store.Volume(l.Volume)
	if !errors.Is(err, backstore.ErrNotFound) {
		return v, err
	}
	if v, err = s.store.CreateVolume(ctx, l.Volume, l.Size); err != nil {
		return nil, fmt.Errorf("make volume %s: %w", l.Volume, err)
	}
	s.log.WithField("volume", l.Volume).WithField("size", conf.FormatSize(l.Size)).Info("volume made")
	return v, nil
}

// openBacking opens the file of l through gotgt, and makes it when it is missing.
func (s *Service) openBacking(l *conf.LUN) (scsi.Volume, error) {
	f, err := os.OpenFile(l.Backing, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(l.Size), f.Close())
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", l.Medium(), err)
	}
	v, err := gotgtbs.Open("file:" + l.Backing)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l.Medium(), err)
	}
	s.backings = append(s.backings, v)
	return v, nil
}

// backingID derives the identity of a file from the store's and its absolute
// path: the same file gets the same one whenever it is served from here.
func (s *Service) backingID(path string) [16]byte {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	h := sha256.New()
	id := s.store.ID()
	h.Write(id[:])
	io.WriteString(h, path)
	return [16]byte(h.Sum(nil))
}

// stopUnitsLimit bounds the wait for what logical units do behind their commands.
const stopUnitsLimit = 2 * time.Second

// stopUnits ends that.
func (s *Service) stopUnits() {
	ctx, cancel := context.WithTimeout(context.Background(), stopUnitsLimit)
	defer cancel()
	for medium, lu := range s.units {
		if err := lu.Close(ctx); err != nil {
			s.log.WithField("medium", medium).WithError(err).Warn("stopping without work that does not end")
		}
	}
}
