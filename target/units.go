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
	"odx/blockdev"
	"odx/conf"
	"odx/target/copymgr"
	"odx/target/iscsi"
	"odx/target/scsi"
	"odx/tokens/view"
)

// checkMedia compares every LUN with the volume or the file that it names, and
// changes nothing. One that cannot be served is left out; where none can, that is an
// error.
func (s *Service) checkMedia(ctx context.Context) error {
	s.checkViews()
	seen := map[string]bool{}
	for _, t := range s.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			if seen[l.Medium()] || l.View != "" {
				continue
			}
			seen[l.Medium()] = true
			if err := s.checkMedium(ctx, l); err != nil {
				s.leaveOut(l.Medium(), err)
			}
		}
	}
	return s.checkSome()
}

// checkMedium returns why a LUN cannot be served.
func (s *Service) checkMedium(ctx context.Context, l *conf.LUN) error {
	size, err := s.existingSize(ctx, l)
	if bad := (*unusableDisk)(nil); errors.As(err, &bad) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, backstore.ErrNotFound) {
		if l.Size == 0 {
			return s.cfg.Problem(l.Key+".size", "LUN %d: %s does not exist; give the size to make it with", l.Number, l.Medium())
		}
		return nil
	}
	if p := s.checkSize(l, size, err); p != nil {
		return *p
	}
	return nil
}

// checkSome returns everything that keeps LUNs from being served, as an error, where
// there is no other LUN.
func (s *Service) checkSome() error {
	var problems conf.Problems
	told := map[string]bool{}
	for _, t := range s.cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			err := s.leftOut[l.Medium()]
			if err == nil {
				return nil
			}
			var problem conf.Problem
			if !errors.As(err, &problem) {
				problem = s.cfg.Problem(l.Key, "LUN %d: %v", l.Number, err)
			}
			if text := problem.Error(); !told[text] {
				told[text] = true
				problems = append(problems, problem)
			}
		}
	}
	if len(problems) == 0 {
		return nil // no LUN is configured
	}
	return problems
}

// existingSize returns the size in bytes of what l names.
func (s *Service) existingSize(ctx context.Context, l *conf.LUN) (int64, error) {
	if l.File != "" {
		size, sector, err := s.fileSize(ctx, l.File)
		if err == nil && int64(l.BlockSize)%sector != 0 {
			err = fmt.Errorf("its sectors are of %d bytes; write block_size: %d", sector, sector)
		}
		return size, err
	}
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
	case l.Size > size:
		p = s.cfg.Problem(l.Key+".size", "LUN %d: %s has %s, not %s; nothing is resized by itself: %swrite its size, leave size out, or name another volume",
			l.Number, l.Medium(), conf.FormatSize(size), conf.FormatSize(l.Size), growHint(l, size))
	case size == 0 || size%int64(l.BlockSize) != 0:
		p = s.cfg.Problem(l.Key+".block_size", "LUN %d: the size of %s, %d bytes, is not a positive multiple of the block size %d", l.Number, l.Medium(), size, l.BlockSize)
	default:
		if l.Size != 0 && l.Size != size {
			s.log.Warn(s.cfg.Problem(l.Key+".size", "LUN %d: %s has %s, which is more than %s, and is served as it is; write its size, or leave size out",
				l.Number, l.Medium(), conf.FormatSize(size), conf.FormatSize(l.Size)).Error())
		}
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
	if err := s.makeViews(ctx); err != nil {
		return nil, err
	}
	numbers, err := loadPortNumbers(s.store)
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
	return targets, errors.Join(s.checkSome(), s.storeDuplicates(), numbers.save(ctx, s.store))
}

// unitOf returns the logical unit of a LUN, which it makes for the first of those on
// one medium; nil where the medium cannot be served.
func (s *Service) unitOf(ctx context.Context, l *conf.LUN) *scsi.LogicalUnit {
	medium := l.Medium()
	if s.units[medium] != nil || s.leftOut[medium] != nil {
		return s.units[medium]
	}
	lu, err := s.makeUnit(ctx, l)
	if err != nil {
		s.leaveOut(medium, err)
		return nil
	}
	s.units[medium] = lu
	return lu
}

// storeDuplicates turns deduplication off for the volumes and files below the LUNs
// that the configuration says this of, by themselves or in an access list.
func (s *Service) storeDuplicates() error {
	for i := range s.cfg.Targets {
		t := &s.cfg.Targets[i]
		for k := range t.LUNs {
			l := &t.LUNs[k]
			if s.units[l.Medium()] == nil || !t.StoresDuplicates(l) {
				continue
			}
			for _, name := range s.spacesOf(l) {
				v, err := s.Space(name)
				if err != nil {
					return err
				}
				v.StoreDuplicates(true)
			}
		}
	}
	return nil
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
	c := scsi.LUConfig{LogicalBlockLength: l.BlockSize, ReadOnly: l.ReadOnly, UnmapGranularity: l.UnmapGranularity}
	switch {
	case l.View != "":
		v, id := s.views.stack(l.View)
		if p := s.checkSize(l, v.Size(), nil); p != nil {
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
		s.setView(&c, s.views.stackOver(d, l.Medium()), s.fileUnitID(l.File))
	case l.Volume != "":
		v, err := s.openVolume(ctx, l)
		if err != nil {
			return nil, err
		}
		c.Volume, c.ID, c.Thin, c.Space = v, v.ID(), true, s.space.space()
		c.ReadOnly = c.ReadOnly || v.ReadOnly()
	default:
		v, err := s.openBacking(l.Backing, l.Size)
		if err != nil {
			return nil, err
		}
		c.Volume, c.ID = v, s.backingID(l.Backing)
	}
	c.Records = newUnitRecords(s.store, c.ID)
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
	if s.tokens.Shares(v) {
		c.Thin, c.Space = true, s.space.space()
	}
}

// openVolume returns the volume of l, and makes it when it is missing.
func (s *Service) openVolume(ctx context.Context, l *conf.LUN) (*backstore.Volume, error) {
	v, err := s.store.Volume(l.Volume)
	if !errors.Is(err, backstore.ErrNotFound) {
		return v, err
	}
	return s.makeVolume(ctx, l.Volume, l.Size)
}

func (s *Service) makeVolume(ctx context.Context, name string, size int64) (*backstore.Volume, error) {
	v, err := s.store.CreateVolume(ctx, name, size)
	if err != nil {
		return nil, fmt.Errorf("make volume %s: %w", name, err)
	}
	s.log.WithField("volume", name).WithField("size", conf.FormatSize(size)).Info("volume made")
	return v, nil
}

// openBacking opens a plain file through gotgt, and makes it with a size when it is
// missing.
func (s *Service) openBacking(path string, size int64) (blockdev.Volume, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	v, err := gotgtbs.Open("file:" + path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
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
	id := s.store.HeaderID()
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
