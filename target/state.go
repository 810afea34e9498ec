package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"odx/conf"
	"odx/offload/view"
	"odx/target/scsi"
)

// state is what a service makes of a configuration. One that is served does not change: a
// reload makes another one, which has in common with it what both configurations have.
type state struct {
	cfg     *conf.Config
	secrets secrets
	unwise  []warning // about the configuration
	media   *media
	views   *views
	units   map[string]*unit        // by conf.LUN.Medium
	devices map[string]*scsi.Target // by name
}

// unit is a logical unit.
type unit struct {
	lu *scsi.LogicalUnit
	// over is the view, or the file of the store, that the unit shows, and gate is that of
	// its group; over is empty where there is none.
	over string
	gate view.Gate
	// snapshot: the medium is read-only, whatever the configuration says.
	snapshot bool
	// identity is what the configuration says of it.
	identity [16]byte
	since    time.Time
}

// newState returns what cfg makes of nothing. made is nil at the start of a service.
func (s *Service) newState(ctx context.Context, cfg *conf.Config, all secrets, made *creation) (*state, error) {
	disks, err := s.admin.DiskManager(ctx)
	if err != nil {
		return nil, err
	}
	m := &media{
		cfg: cfg, log: s.log, store: s.store, tokens: s.tokens, disks: disks, users: s.users, foreign: s.foreign,
		leftOut: map[string]error{}, backings: map[string][]io.Closer{}, made: made,
	}
	return &state{
		cfg: cfg, secrets: all, media: m, views: newViews(m),
		units: map[string]*unit{}, devices: map[string]*scsi.Target{},
	}, nil
}

// target returns the target of a configuration by its name, nil if there is none.
func (st *state) target(name string) *conf.Target {
	for i := range st.cfg.Targets {
		if st.cfg.Targets[i].Name == name {
			return &st.cfg.Targets[i]
		}
	}
	return nil
}

// has reports whether the state has a logical unit, on whatever medium.
func (st *state) has(u *unit) bool {
	for _, own := range st.units {
		if own.lu == u.lu {
			return true
		}
	}
	return false
}

// luns calls yield with each LUN of the configuration and its target.
func (st *state) luns(yield func(*conf.Target, *conf.LUN) bool) {
	for i := range st.cfg.Targets {
		t := &st.cfg.Targets[i]
		for k := range t.LUNs {
			if !yield(t, &t.LUNs[k]) {
				return
			}
		}
	}
}

// unit returns the logical unit on a medium, nil if it is not served.
func (st *state) unit(medium string) *scsi.LogicalUnit {
	if u := st.units[medium]; u != nil {
		return u.lu
	}
	return nil
}

// adopt takes over from before what the configuration still has, but for the logical unit on
// the medium again. An error is a conf.Problem.
func (st *state) adopt(before *state, again string) error {
	for i := range st.cfg.Views {
		v := &st.cfg.Views[i]
		if d := before.views.devices[v.Name]; d != nil && before.hasView(v) {
			st.adoptView(before, v)
		}
	}
	for _, l := range st.luns {
		u := before.units[l.Medium()]
		if u == nil || st.units[l.Medium()] != nil || l.Medium() == again {
			continue
		}
		if l.View != "" && st.views.devices[l.View] == nil {
			continue // the view is another one; see inUse
		}
		if u.lu.LogicalBlockLength() != l.BlockSize {
			return st.cfg.Problem(l.Key+".block_size", "LUN %d: %s is served with blocks of %d bytes, which a running server does not change; restart it, or take the LUN out with one reload, and add it with the next",
				l.Number, l.Medium(), u.lu.LogicalBlockLength())
		}
		if id := l.Identity; id != u.identity {
			return st.cfg.Problem(l.Key+".identity", "LUN %d: %s is served with another identity, which a running server does not change; take the LUN out with one reload, and add it with the next",
				l.Number, l.Medium())
		}
		st.units[l.Medium()] = u
		if l.File != "" {
			f := before.views.files[l.File]
			if f.readOnly && !l.ReadOnly && !u.snapshot {
				return st.cfg.Problem(l.Key+".read_only", "LUN %d: %s cannot be written to: %v", l.Number, l.Medium(), errOpenReadOnly)
			}
			st.views.files[l.File] = f
		}
		if b := before.media.backings[l.Medium()]; b != nil {
			st.media.backings[l.Medium()] = b
		}
	}
	for _, c := range before.views.closers {
		if st.views.has(c.name) {
			st.views.closers = append(st.views.closers, c)
		}
	}
	return st.adoptGates()
}

// hasView reports whether the state has a view with the same devices and parameters.
func (st *state) hasView(v *conf.View) bool {
	for i := range st.cfg.Views {
		if own := &st.cfg.Views[i]; own.Name == v.Name {
			return sameView(*own, *v)
		}
	}
	return false
}

// sameView compares views but for their places in the file, and the size with which missing
// devices are created.
func sameView(a, b conf.View) bool {
	a.Key, a.Size, b.Key, b.Size = "", 0, "", 0
	return reflect.DeepEqual(a, b)
}

func (st *state) adoptView(before *state, v *conf.View) {
	st.views.devices[v.Name] = before.views.devices[v.Name]
	if b := before.media.backings[viewMedium(v.Name)]; b != nil {
		st.media.backings[viewMedium(v.Name)] = b
	}
	for _, d := range v.Over {
		if f := before.views.files[d.File]; f != nil {
			st.views.files[d.File] = f
		}
		if f := before.views.legFiles[d.Backing]; f != nil {
			st.views.legFiles[d.Backing] = f
		}
	}
}

// adoptGates has new logical units use the gates of those that they share devices with.
func (st *state) adoptGates() error {
	for medium, u := range st.units {
		if u.over == "" {
			continue
		}
		together := st.views.together(u.over)
		if other, ok := st.views.gates[together]; ok && other != u.gate {
			return st.cfg.Problem("views", "a new view shares devices with %s and with another LUN, which had none in common when they were first served; restart odx serve", medium)
		}
		st.views.gates[together] = u.gate
	}
	return nil
}

// inUse returns why a device that the new state opens cannot be opened while before is
// served: something that leaves has it open until then, and may write to it.
func (st *state) inUse(before *state) error {
	for i := range st.cfg.Views {
		v := &st.cfg.Views[i]
		if st.views.devices[v.Name] != nil || v.Kind == conf.ViewPartition {
			continue
		}
		for _, d := range v.Over {
			if user := before.leavingUser(st, d.String()); user != "" {
				return st.cfg.Problem(v.Key, "view %s: %s is used by %s until this reload has ended; take that out with one reload, and add the view with the next", v.Name, d, user)
			}
		}
	}
	for _, l := range st.luns {
		if st.units[l.Medium()] != nil {
			continue
		}
		d := deviceOf(l)
		if user := before.leavingView(st, d.String()); user != "" {
			return st.cfg.Problem(l.Key, "LUN %d: %s is used by %s until this reload has ended; take that out with one reload, and add the LUN with the next", l.Number, l.Medium(), user)
		}
	}
	return nil
}

// leavingUser returns the LUN or view over a device that next does not have, "" for none.
func (st *state) leavingUser(next *state, device string) string {
	for t, l := range st.luns {
		d := deviceOf(l)
		if st.units[l.Medium()] != nil && next.units[l.Medium()] == nil && d.String() == device {
			return fmt.Sprintf("LUN %d of %s", l.Number, t.Name)
		}
	}
	return st.leavingView(next, device)
}

// leavingView returns the view over a device that next does not have, "" for none.
func (st *state) leavingView(next *state, device string) string {
	for i := range st.cfg.Views {
		v := &st.cfg.Views[i]
		if st.views.devices[v.Name] == nil || next.views.devices[v.Name] != nil {
			continue
		}
		if v.Name == device {
			return "a view of that name with other devices or parameters"
		}
		for _, d := range v.Over {
			if d.String() == device && v.Kind != conf.ViewPartition {
				return "view " + v.Name
			}
		}
	}
	return ""
}

// close closes what kept, the state that goes on, does not have; a nil kept has nothing.
// Nothing uses it any more.
func (st *state) close(kept *state) error {
	var errs []error
	if kept == nil {
		errs = append(errs, st.views.close(nil))
	} else {
		errs = append(errs, st.views.close(kept.views))
	}
	for medium := range st.media.backings {
		if kept == nil || kept.media.backings[medium] == nil {
			errs = append(errs, st.media.closeBackings(medium))
		}
	}
	return errors.Join(errs...)
}

// deviceOf returns the medium of a LUN.
func deviceOf(l *conf.LUN) conf.Device {
	return conf.Device{View: l.View, Volume: l.Volume, File: l.File, Backing: l.Backing, ISCSI: l.ISCSI}
}
