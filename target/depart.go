package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"odx/admin"
	"odx/blockdev"
	"odx/conf"
	"odx/migrate"
	"odx/replica/pair"
	"odx/target/scsi"
	"odx/target/scsi/mode"
	"odx/target/scsi/reserve"
)

// takenAlong are the keys of what a logical unit takes along to another server.
var takenAlong = [...]string{mode.RecordKey, reserve.RecordKey}

// LUNs implements migrate.Server.
func (s migrated) LUNs(d conf.Device) (list []pair.MovedLUN) {
	for t, l := range s.state.Load().luns {
		if l.Medium() == mediumOf(d) {
			list = append(list, pair.MovedLUN{Target: t.Name, Number: l.Number, BlockLength: l.BlockSize, ReadOnly: l.ReadOnly})
		}
	}
	return list
}

// Units implements migrate.Server.
func (s migrated) Units(d conf.Device) (list []pair.UnitRecord, err error) {
	lu := s.state.Load().unit(mediumOf(d))
	if lu == nil {
		return nil, errNoUnit(d)
	}
	return s.unitRecords(lu.ID())
}

// unitRecords returns what the logical unit with an identity takes along.
func (s *Service) unitRecords(identity [16]byte) (list []pair.UnitRecord, err error) {
	durable := admin.NewUnitRecords(s.store, s.store.Identify(identity))
	era := durable.InEra(s.era.id)
	for _, key := range takenAlong {
		for _, from := range []struct {
			load func(string) ([]byte, error)
			era  bool
		}{{durable.Load, false}, {era.Load, true}} {
			value, err := from.load(key)
			if err != nil {
				return nil, err
			}
			if value != nil {
				list = append(list, pair.UnitRecord{Key: key, Era: from.era, Value: value})
			}
		}
	}
	return list, nil
}

func errNoUnit(d conf.Device) error {
	return fmt.Errorf("%w: no LUN is on %s any more", blockdev.ErrInvalid, mediumOf(d))
}

// leaveSessions bounds how long commands are held until initiators that are redirected have
// logged out, which the transport ends before.
const leaveSessions = 5 * time.Second

// Depart implements migrate.Server.
func (s migrated) Depart(ctx context.Context, d migrate.Departure) (held time.Duration, err error) {
	lu := s.state.Load().unit(mediumOf(d.From))
	if lu == nil {
		return 0, errNoUnit(d.From)
	}
	if s.copies.Using(lu) {
		return 0, errCopying
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, s.cutBound)
	defer cancel()
	release, err := lu.Hold(limited)
	if err != nil {
		return time.Since(began), err
	}
	defer release()
	if s.copies.Using(lu) { // of a command that began before
		return time.Since(began), errCopying
	}
	if err := d.Last(limited); err != nil {
		d.Stays(ctx)
		return time.Since(began), err
	}
	outcome := d.Decide(ctx)
	held = time.Since(began)
	if outcome == pair.Kept {
		d.Stays(ctx)
	}
	err = s.Away(context.WithoutCancel(ctx), d.From, outcome, d.Portal)
	if outcome == pair.Moved && d.Portal != "" && err == nil {
		// They repeat their commands at the destination: an answer from here would be an error.
		waiting, cancel := context.WithTimeout(ctx, leaveSessions)
		defer cancel()
		lu.AwaitNoneHeld(waiting)
	}
	return held, err
}

// Away implements migrate.Server.
func (s migrated) Away(ctx context.Context, d conf.Device, o pair.Outcome, portal string) error {
	lu := s.state.Load().unit(mediumOf(d))
	if lu != nil {
		lu.SetAway(awayState(o))
	}
	if o != pair.Moved || portal == "" {
		return nil
	}
	edits := s.redirects(d, portal)
	if len(edits) == 0 {
		return nil
	}
	_, err := s.EditConfig(ctx, edits...)
	return err
}

// awayState returns the state of the ports of a logical unit for the outcome of its migration.
func awayState(o pair.Outcome) scsi.PortState {
	switch o {
	case pair.Moved:
		return scsi.Unavailable
	case pair.Unknown:
		return scsi.Transitioning
	}
	return scsi.ActiveOptimized
}

// moved returns whether the LUN on a volume that was given up has moved.
func (s *Service) moved(l *conf.LUN) pair.Outcome {
	if s.migrations != nil && s.migrations.HasMoved(l.Volume) {
		return pair.Moved
	}
	return pair.Unknown
}

// redirects returns the edits that redirect initiators of targets that have no other LUNs than
// those on a device. Targets that are redirected already are left out.
func (s migrated) redirects(d conf.Device, portal string) (edits []conf.Edit) {
	cfg := s.state.Load().cfg
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		if on, all := lunsOn(t, d); len(on) == 0 || !all || t.Redirect != nil && t.Redirect.To.String() == portal {
			continue
		}
		edits = append(edits, conf.SetRedirect{Target: t.Name, To: portal})
	}
	return edits
}

// lunsOn returns the numbers of the LUNs of a target that are on a device, and whether it has
// no others.
func lunsOn(t *conf.Target, d conf.Device) (on []uint16, all bool) {
	for i := range t.LUNs {
		if l := &t.LUNs[i]; l.Medium() == mediumOf(d) {
			on = append(on, l.Number)
		}
	}
	return on, len(on) == len(t.LUNs)
}

// CheckRedirect implements migrate.Server.
func (s migrated) CheckRedirect(d conf.Device, portal string) error {
	edits := s.redirects(d, portal)
	if len(edits) == 0 {
		return fmt.Errorf("%w: the target has other LUNs too, so that its initiators cannot be redirected; they need a path to the other server, and no portal is given", blockdev.ErrInvalid)
	}
	return s.checkEdits(edits)
}

// checkEdits returns why the configuration file cannot be edited so.
func (s migrated) checkEdits(edits []conf.Edit) error {
	path := s.state.Load().cfg.File
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	_, err = conf.Apply(path, text, edits...)
	return err
}

// Forget implements migrate.Server. A target that has no other LUNs goes with them, unless it
// redirects initiators.
func (s migrated) Forget(ctx context.Context, d conf.Device) error {
	cfg := s.state.Load().cfg
	var edits []conf.Edit
	left := len(cfg.Targets)
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		on, all := lunsOn(t, d)
		if len(on) > 0 && all && t.Redirect == nil {
			if left--; left == 0 {
				return fmt.Errorf("%w: target %s has no other LUN, and there is no other target; add one, or redirect it", admin.ErrInUse, t.Name)
			}
			edits = append(edits, conf.RemoveTarget{Name: t.Name})
			continue
		}
		for _, number := range on {
			edits = append(edits, conf.RemoveLUN{Target: t.Name, Number: number})
		}
	}
	if len(edits) == 0 {
		return nil
	}
	_, err := s.EditConfig(ctx, edits...)
	return err
}

var _ pair.Arrivals = arrivals{}

// arrivals is a service as the destination of migrations.
type arrivals struct{ *Service }

// Check implements pair.Arrivals.
func (s arrivals) Check(_ context.Context, volume string, identity pair.ID, luns []pair.MovedLUN) error {
	if err := conf.CheckVolumeName(volume); err != nil {
		return fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	st := s.state.Load()
	for medium, u := range st.units {
		if u.lu.ID() != identity {
			continue
		}
		if left, ok := strings.CutPrefix(medium, "volume "); ok && s.migrations != nil && s.migrations.HasMoved(left) {
			return fmt.Errorf("%w: the LUN has moved away from %s here; finish that migration first: odx volume migrate finish %s", admin.ErrInUse, medium, left)
		}
		return fmt.Errorf("%w: %s is the same disk for initiators", admin.ErrInUse, medium)
	}
	for _, l := range luns {
		if l.BlockLength != 512 && l.BlockLength != 4096 {
			return fmt.Errorf("%w: LUN %d with blocks of %d bytes", blockdev.ErrInvalid, l.Number, l.BlockLength)
		}
	}
	edits := s.edits(volume, identity, luns)
	err := migrated(s).checkEdits(edits)
	if errors.Is(err, conf.ErrNotFound) {
		return fmt.Errorf("%w; a LUN moves to the target of the same name: add it there, if need be with a redirect to this server and without LUNs", err)
	}
	return err
}

// edits returns those that serve what arrives, as far as the configuration does not name it.
func (s arrivals) edits(volume string, identity pair.ID, luns []pair.MovedLUN) (edits []conf.Edit) {
	st := s.state.Load()
	for _, l := range luns {
		t := st.target(l.Target)
		if t != nil && serves(t, l.Number, volume) {
			continue
		}
		edits = append(edits, conf.AddLUN{Target: l.Target, LUN: conf.LUN{Number: l.Number, Volume: volume, BlockSize: l.BlockLength, ReadOnly: l.ReadOnly, Identity: identity}})
		if t != nil && t.Redirect != nil {
			edits = append(edits, conf.SetRedirect{Target: t.Name})
		}
	}
	return edits
}

// serves reports whether a LUN of a target is on a volume.
func serves(t *conf.Target, number uint16, volume string) bool {
	for i := range t.LUNs {
		if l := &t.LUNs[i]; l.Number == number && l.Volume == volume {
			return true
		}
	}
	return false
}

// Keep implements pair.Arrivals. What is not among units is as after power on.
func (s arrivals) Keep(ctx context.Context, identity pair.ID, units []pair.UnitRecord) error {
	durable := admin.NewUnitRecords(s.store, s.store.Identify(identity))
	era := durable.InEra(s.era.id)
	for _, key := range takenAlong {
		values := map[bool][]byte{}
		for _, u := range units {
			if u.Key == key {
				values[u.Era] = u.Value
			}
		}
		if err := errors.Join(durable.Save(ctx, key, values[false]), era.Save(ctx, key, values[true])); err != nil {
			return err
		}
	}
	return nil
}

// identityOn returns the identity of the logical unit on a volume, or file:NAME, that has the given
// one unless the configuration says another.
func (s arrivals) identityOn(object string, identity pair.ID) pair.ID {
	medium := replicaMedium(object)
	cfg := s.state.Load().cfg
	for i := range cfg.Targets {
		for k := range cfg.Targets[i].LUNs {
			if l := &cfg.Targets[i].LUNs[k]; l.Medium() == medium && l.Identity != [16]byte{} {
				return l.Identity
			}
		}
	}
	return identity
}

// Units implements pair.Arrivals.
func (s arrivals) Units(object string, identity pair.ID) ([]pair.UnitRecord, error) {
	return s.unitRecords(s.identityOn(object, identity))
}

// PowerOff implements pair.Arrivals.
func (s arrivals) PowerOff(ctx context.Context, object string, identity pair.ID) error {
	era := admin.NewUnitRecords(s.store, s.store.Identify(s.identityOn(object, identity))).InEra(s.era.id)
	var failed []error
	for _, key := range takenAlong {
		failed = append(failed, era.Save(ctx, key, nil))
	}
	return errors.Join(failed...)
}

// Adopt implements pair.Arrivals.
func (s arrivals) Adopt(ctx context.Context, object string, identity pair.ID, units []pair.UnitRecord) (dropped int, err error) {
	var kept []pair.UnitRecord
	for _, u := range units {
		if u.Key == reserve.RecordKey {
			var n int
			u.Value, n, err = reserve.Fit(u.Value, u.Era, s.ports(object))
			if err != nil {
				return 0, fmt.Errorf("reservations of the peer: %w", err)
			}
			dropped = max(dropped, n) // both records have those that survive a loss of power
		}
		if u.Value != nil {
			kept = append(kept, u)
		}
	}
	return dropped, s.Keep(ctx, s.identityOn(object, identity), kept)
}

// ports returns which target ports reach the LUN on a volume, or file:NAME.
func (s arrivals) ports(object string) func(target string, tag uint16) bool {
	cfg, medium := s.state.Load().cfg, replicaMedium(object)
	return func(target string, tag uint16) bool {
		for i := range cfg.Targets {
			t := &cfg.Targets[i]
			if t.Name != target || !slices.ContainsFunc(t.LUNs, func(l conf.LUN) bool { return l.Medium() == medium }) {
				continue
			}
			return slices.ContainsFunc(cfg.Portals, func(p conf.Portal) bool { return p.Group == tag && t.ReachedBy(p) })
		}
		return false
	}
}

// Serve implements pair.Arrivals.
func (s arrivals) Serve(ctx context.Context, volume string, identity pair.ID, luns []pair.MovedLUN) error {
	edits := s.edits(volume, identity, luns)
	if len(edits) == 0 {
		return nil
	}
	_, err := s.EditConfig(ctx, edits...)
	return err
}
