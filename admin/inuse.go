package admin

import (
	"cmp"
	"fmt"
	"strings"

	"odx/conf"
)

// configuredLUN is a LUN of the configuration and the name of its target.
type configuredLUN struct {
	*conf.LUN
	target string
}

// volumeMedium and fileMedium are what conf.LUN.Medium gives for LUNs on them.
func volumeMedium(name string) string { return (&conf.LUN{Volume: name}).Medium() }
func fileMedium(name string) string   { return (&conf.LUN{File: name}).Medium() }

// lunsOn returns the LUNs of the configuration on a medium.
func (s *Store) lunsOn(medium string) []configuredLUN { return lunsOn(s.cfg(), medium) }

func lunsOn(cfg *conf.Config, medium string) []configuredLUN {
	var luns []configuredLUN
	for _, t := range cfg.Targets {
		for i := range t.LUNs {
			if t.LUNs[i].Medium() == medium {
				luns = append(luns, configuredLUN{&t.LUNs[i], t.Name})
			}
		}
	}
	return luns
}

// checkNoLUN returns ErrInUse for a medium that the configuration has as a LUN.
func (s *Store) checkNoLUN(medium string) error {
	for _, cfg := range s.using.configurations() {
		for _, l := range lunsOn(cfg, medium) {
			return fmt.Errorf("%s: %w as LUN %d of %s; take that out of the configuration (%s, line %d), reload odx serve if it runs, and try again",
				medium, ErrInUse, l.Number, l.target, cfg.File, cfg.Problem(l.Key, "").Line)
		}
	}
	return nil
}

// checkServed returns ErrInUse if the object, named as in Object, is served.
func (s *Store) checkServed(name string) error {
	if file, ok := strings.CutPrefix(name, FilePrefix); ok && s.server != nil {
		if user := s.server.FileUser(file); user != "" {
			return fmt.Errorf("%s: %w by %s", name, ErrInUse, user)
		}
	}
	return s.checkNoView(name, func(*conf.View) bool { return true })
}

// checkDisposable returns ErrInUse for a file that a LUN or a view of the configuration
// needs, served or not.
func (s *Store) checkDisposable(name string) error {
	if err := s.checkNoLUN(fileMedium(name)); err != nil {
		return err
	}
	return s.checkServed(FilePrefix + name)
}

// CheckWritable returns ErrInUse for an object below a view which has to see every
// write to it.
func (s *Store) CheckWritable(name string) error {
	if strings.HasPrefix(name, FilePrefix) {
		return s.checkServed(name)
	}
	return s.checkNoView(name, func(v *conf.View) bool { return v.Kind != conf.ViewPartition })
}

// BeginWrite registers a writer of an object, before the object is looked up; the
// writer calls end when it is done. Errors are those of CheckWritable, and vhd.ErrBusy
// for a file that an operation on virtual disks is about to replace: that operation
// waits for the writers registered before it.
func (s *Store) BeginWrite(name string) (end func(), err error) {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	if err := s.CheckWritable(name); err != nil {
		return nil, err
	}
	done := func() {}
	if file, ok := strings.CutPrefix(name, FilePrefix); ok {
		if disks := s.openedDisks(); disks != nil {
			if done, err = disks.Write(file); err != nil {
				return nil, err
			}
		}
	}
	ended := s.using.write(name)
	return func() {
		ended()
		done()
	}, nil
}

func (s *Store) checkNoView(name string, counts func(*conf.View) bool) error {
	for _, cfg := range s.using.configurations() {
		for i := range cfg.Views {
			v := &cfg.Views[i]
			for _, d := range v.Over {
				if counts(v) && cmp.Or(d.View, d.Backing) == "" && d.String() == name {
					return fmt.Errorf("%s: %w by view %s (%s, line %d)", name, ErrInUse, v.Name, cfg.File, cfg.Problem(v.Key, "").Line)
				}
			}
		}
	}
	return nil
}
