package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"odx/admin"
	"odx/conf"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// transition takes a service from one configuration to the next. Everything that can fail is
// done by prepare and settle; what they have done, undo undoes; commit cannot fail; leave
// closes what the next state does not have.
//
// If the process ends in between, the next start has the configuration of the file: the
// file is replaced by settle, after all preparations. What was prepared is removed then, or
// is of no use to any configuration: see creation.
type transition struct {
	service   *Service
	now, next *state
	again     string // as in proposal
	made      *creation

	memory, memoryBefore conf.Memory
	sizes                map[string]int64 // of LUNs by their media, as in the configuration of now

	portals  *nextPortals
	numbers  *portNumbers
	devices  map[string]scsi.Configuration // by name of the target
	server   iscsi.Reconfiguration
	outside  []Prepared // by followers
	warnings []string
	move     *move // of LUNs to another medium; nil for none
	// history is the new history of LUNs, historyBefore what the store has.
	history, historyBefore *lunHistory
	stored                 bool // history is
	settled                bool // the settings of the store are those of next
}

// reached calls the hook of tests after a step.
func (t *transition) reached(step string) {
	if t.service.reached != nil {
		t.service.reached(step)
	}
}

// prepare does what can be done while the service continues as it is.
func (t *transition) prepare(ctx context.Context, cfg *conf.Config) error {
	s := t.service
	all, unwise, err := readSecrets(cfg)
	if err != nil {
		return err
	}
	s.admin.Reserve(cfg)
	t.memoryBefore = s.admin.Memory()
	if t.memory, err = s.admin.DivideAgain(cfg); err != nil {
		return err
	}
	if s.standbys.Attached() > 0 {
		if err := checkWriteThrough(cfg); err != nil {
			return err
		}
	}
	if t.portals, err = s.portals.prepare(ctx, cfg); err != nil {
		return err
	}
	if err := checkRedirects(ctx, cfg, t.portals.list); err != nil {
		return err
	}
	unwise = append(unwise, warnings(cfg, t.portals.list)...)
	for _, w := range unwise {
		if !slices.Contains(t.now.unwise, w) {
			t.warnings = append(t.warnings, w.text)
		}
	}
	for _, prepare := range s.followers {
		p, err := prepare(cfg)
		if err != nil {
			return err
		}
		t.outside, t.warnings = append(t.outside, p), append(t.warnings, p.Warnings...)
	}
	t.made = newCreation(s.store, s.log)
	if t.next, err = s.newState(ctx, cfg, all, t.made); err != nil {
		return err
	}
	t.next.unwise = unwise
	if err := errors.Join(t.next.adopt(t.now, t.again), t.next.inUse(t.now), t.written(), t.migrating()); err != nil {
		return err
	}
	if err := t.makeMedia(ctx); err != nil {
		return err
	}
	return t.prepareTargets(ctx)
}

// written returns an error for a new view or LUN over what a client of the API writes to:
// the view has to see every write.
func (t *transition) written() error {
	for i := range t.next.cfg.Views {
		v := &t.next.cfg.Views[i]
		for _, d := range v.Over {
			if t.next.views.devices[v.Name] == nil && v.Kind != conf.ViewPartition && t.service.admin.Written(d.String()) {
				return t.next.cfg.Problem(v.Key, "view %s: %s is being written to by a client of the API; try again when that has ended", v.Name, d)
			}
		}
	}
	for _, l := range t.next.luns {
		if l.File != "" && t.next.units[l.Medium()] == nil && t.service.admin.Written(admin.FilePrefix+l.File) {
			return t.next.cfg.Problem(l.Key, "LUN %d: %s is being changed by a client of the API; try again when that has ended", l.Number, l.Medium())
		}
	}
	return nil
}

// makeMedia opens and creates the media that are new. One that was left out before, and
// cannot be served now either, stays left out; any other that cannot be served is an error.
func (t *transition) makeMedia(ctx context.Context) error {
	st := t.next
	t.sizes = map[string]int64{}
	for _, l := range t.now.luns {
		t.sizes[l.Medium()] = l.Size
	}
	for i := range st.cfg.Views {
		v := &st.cfg.Views[i]
		if st.views.devices[v.Name] != nil {
			continue
		}
		if err := t.allow(viewMedium(v.Name), v.Key, t.openView(ctx, v)); err != nil {
			return err
		}
	}
	for _, l := range st.luns {
		medium := l.Medium()
		if t.move.takes(medium) {
			if err := t.moveUnit(ctx, l); err != nil {
				return err
			}
			continue
		}
		if u := st.units[medium]; u != nil {
			if err := t.checkServed(l, u); err != nil {
				return err
			}
			continue
		}
		if st.media.leftOut[medium] != nil {
			continue
		}
		if err := t.allow(medium, l.Key, t.addUnit(ctx, l)); err != nil {
			return err
		}
	}
	return st.media.checkSome()
}

// allow leaves a medium out that was left out before; for another one it returns err.
func (t *transition) allow(medium, key string, err error) error {
	var problem conf.Problem
	switch {
	case err == nil:
		return nil
	case notServedByRole(err):
		t.next.media.leaveOut(medium, err)
		return nil
	case t.now.media.leftOut[medium] != nil:
		t.next.media.leftOut[medium] = err
		t.warnings = append(t.warnings, fmt.Sprintf("%s is still not served: %v", medium, err))
		return nil
	case !errors.As(err, &problem):
		return t.next.cfg.Problem(key, "%v", err)
	}
	return err
}

func (t *transition) openView(ctx context.Context, v *conf.View) error {
	for _, d := range v.Over {
		if d.View != "" || v.Size != 0 {
			continue
		}
		if err := t.next.media.checkDevice(v, d); err != nil {
			return err
		}
	}
	return t.next.views.open(ctx, v)
}

func (t *transition) addUnit(ctx context.Context, l *conf.LUN) error {
	if l.View != "" {
		if t.next.views.devices[l.View] == nil {
			return t.next.media.leftOut[viewMedium(l.View)]
		}
	} else if err := t.next.media.checkMedium(ctx, l); err != nil {
		return err
	}
	return t.service.addUnit(ctx, t.next, l)
}

// checkServed returns why a LUN whose medium is served cannot be what the configuration says.
func (t *transition) checkServed(l *conf.LUN, u *unit) error {
	if size, ok := t.sizes[l.Medium()]; ok && size == l.Size {
		return nil // it was accepted
	}
	if p := t.next.media.checkSize(l, u.lu.Volume().Size(), nil); p != nil {
		return *p
	}
	return nil
}

// prepareTargets computes what the targets become.
func (t *transition) prepareTargets(ctx context.Context) (err error) {
	s, st := t.service, t.next
	if t.numbers, err = loadPortNumbers(s.store, s.log); err != nil {
		return err
	}
	if t.historyBefore, err = loadLUNHistory(s.store, s.log); err != nil {
		return err
	}
	if t.history, err = loadLUNHistory(s.store, s.log); err != nil {
		return err
	}
	replaced := t.history.compare(st)
	t.devices = map[string]scsi.Configuration{}
	for i := range st.cfg.Targets {
		target := &st.cfg.Targets[i]
		c, err := s.deviceConfiguration(st, target, t.numbers, replaced)
		if err != nil {
			return err
		}
		device := t.now.devices[target.Name]
		if device == nil {
			device = s.newDevice(target.Name)
			device.KeepSightings(s.sightings.since(target.Name))
		}
		if err := device.Check(c); err != nil {
			return st.cfg.Problem("targets", "target %s: %v", target.Name, err)
		}
		st.devices[target.Name], t.devices[target.Name] = device, c
	}
	t.numbers.forget(st.cfg)
	targets, discovery, err := s.targetConfigs(st, replaced)
	if err != nil {
		return err
	}
	t.server = iscsi.Reconfiguration{Options: transportOptions(st.cfg.Limits, t.memory), Targets: targets}
	t.server.Options.SlowCommand = slowCommand(st.cfg.Log)
	t.server.Options.DiscoveryAuthentication = discovery
	for _, p := range t.portals.list {
		if p.listener != nil {
			t.server.Portals = append(t.server.Portals, iscsi.Portal{Listener: p.listener, Group: p.Group, Advertise: p.Advertise})
		}
	}
	if err := t.server.Check(); err != nil {
		return st.cfg.Problem("targets", "%v", err)
	}
	return ctx.Err()
}

// settle stores what has to outlive the process, the configuration file last. After it,
// commit follows.
func (t *transition) settle(ctx context.Context, p *proposal) error {
	s := t.service
	if err := t.numbers.save(ctx, s.store); err != nil {
		return err
	}
	t.stored = t.history.changed
	if err := t.history.save(ctx, s.store); err != nil {
		return err
	}
	if err := s.admin.Reconfigure(t.next.cfg, t.memory); err != nil {
		return t.next.cfg.Problem("tokens", "%v", err)
	}
	t.settled = true
	t.reached("stored")
	if err := p.putFile(); err != nil {
		return err
	}
	t.reached("file replaced")
	if err := t.made.finish(ctx); err != nil {
		return errors.Join(err, p.putBack())
	}
	return nil
}

// undo undoes prepare and settle.
func (t *transition) undo() error {
	s := t.service
	ctx := context.Background()
	var errs []error
	if t.settled {
		errs = append(errs, s.admin.Reconfigure(t.now.cfg, t.memoryBefore))
	}
	if t.stored {
		t.historyBefore.changed = true
		errs = append(errs, t.historyBefore.save(ctx, s.store))
	}
	if t.next != nil {
		s.stopUnits(t.next, t.now)
		for _, u := range t.next.units {
			if !t.now.has(u) {
				s.copies.Remove(u.lu)
			}
		}
		errs = append(errs, t.next.close(t.now), t.made.undo(ctx))
	}
	for _, p := range t.outside {
		p.Undo()
	}
	if t.portals != nil {
		errs = append(errs, t.portals.undo())
	}
	s.admin.Reserve(nil)
	return errors.Join(errs...)
}

// rotated returns the users whose secrets are others than before, and not in changes: the
// configuration has the same source for them.
func (t *transition) rotated(all []conf.Change) []conf.Change {
	before, after := t.now.namedSecrets(), t.next.namedSecrets()
	changes := slices.Clone(all)
	for _, key := range slices.Sorted(maps.Keys(after)) {
		old, ok := before[key]
		known := slices.ContainsFunc(all, func(c conf.Change) bool { return c.Key == key })
		if ok && !known && !bytes.Equal(old, after[key]) {
			changes = append(changes, conf.Change{Key: key, Before: "(another secret)", After: "(secret)", Class: conf.AtOnce})
		}
	}
	for _, o := range t.outside {
		for _, c := range o.Changes {
			if !slices.ContainsFunc(all, func(known conf.Change) bool { return known.Key == c.Key }) {
				changes = append(changes, c)
			}
		}
	}
	return changes
}

// namedSecrets returns the secrets of the configuration by keys as those of conf.Diff.
func (st *state) namedSecrets() map[string][]byte {
	named := map[string][]byte{}
	add := func(key string, u *conf.User) {
		source := u.Secret.Key[strings.LastIndex(u.Secret.Key, ".")+1:]
		named[key+"."+source] = st.secrets[u.Key]
	}
	all := func(key string, a *conf.Authentication) {
		for i := range a.Users {
			add(fmt.Sprintf("%s.authentication.users[%s]", key, a.Users[i].Name), &a.Users[i])
		}
		if a.Mutual != nil {
			add(key+".authentication.mutual", a.Mutual)
		}
	}
	all("discovery", &st.cfg.DiscoveryAuthentication)
	for i := range st.cfg.Targets {
		all("targets["+st.cfg.Targets[i].Name+"]", &st.cfg.Targets[i].Authentication)
	}
	for t, l := range st.luns {
		if l.Login == nil {
			continue
		}
		key := fmt.Sprintf("targets[%s].luns[%d].login", t.Name, l.Number)
		add(key, &l.Login.User)
		if l.Login.Mutual != nil {
			add(key+".mutual", l.Login.Mutual)
		}
	}
	return named
}
