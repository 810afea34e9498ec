package target

import (
	"context"
	"errors"
	"sync"
	"time"

	"odx/admin"
	"odx/target/scsi"
)

// leaveLimit bounds how long the commands of LUNs that leave may go on. Then they are
// aborted.
const leaveLimit = 5 * time.Second

// commit makes the next state the one that is served. It cannot fail: prepare has checked
// what it does.
func (t *transition) commit() (r admin.Reloaded) {
	s := t.service
	r.Warnings = t.warnings
	t.describe(&r)
	t.history.logDifferences(s.log)
	for i := range t.server.Targets {
		c := &t.server.Targets[i]
		c.Configure = func(rights func(*scsi.Nexus) (scsi.Rights, bool)) { t.configure(c.Name, rights) }
	}
	t.moveMedium()
	s.state.Store(t.next)
	s.portals.commit(t.portals)
	result, err := s.server.Reconfigure(t.server)
	if err != nil { // of a server that is shut down or suspended, which a reload excludes
		s.log.WithError(err).Error("transport not reconfigured; restart odx serve")
	}
	r.LogoutsRequested, r.LockedFor = len(result.LoggingOut), result.LongestLock
	for name, device := range t.now.devices {
		if t.next.devices[name] != nil {
			continue
		}
		// Its ports are no ports of logical units that other targets have.
		if _, err := device.Reconfigure(scsi.Configuration{}); err != nil {
			s.log.WithError(err).WithField("target", name).Error("target that left not reconfigured")
		}
	}
	s.movePortals(t.portals, &r)
	t.apply()
	for _, p := range t.outside {
		p.Commit()
	}
	t.made.committed()
	return r
}

// configure makes a target what it is by the next configuration. rights has those that
// initiators that are logged in get with it, so that each learns at once what has changed for
// it: of the LUNs of the target, and of its view of them.
func (t *transition) configure(name string, rights func(*scsi.Nexus) (scsi.Rights, bool)) {
	c := t.devices[name]
	c.Rights = rights
	if _, err := t.next.devices[name].Reconfigure(c); err != nil {
		t.service.log.WithError(err).WithField("target", name).Error("target not reconfigured; restart odx serve")
	}
}

// apply applies the settings of what continues.
func (t *transition) apply() {
	s, st := t.service, t.next
	s.copies.Reconfigure(copyRules(st.cfg))
	threshold := s.space.warnAt(st.cfg.Store.SoftThreshold)
	for _, l := range st.luns {
		u := st.units[l.Medium()]
		if u == nil {
			continue
		}
		if l.ISCSI != "" {
			s.foreign.setLogin(l.ISCSI, st.loginOf(l))
		}
		u.lu.SetSoftThreshold(threshold)
		u.lu.SetReadOnly(l.ReadOnly || u.snapshot)
		if err := u.lu.SetUnmapGranularity(l.UnmapGranularity); err != nil {
			s.log.WithError(err).WithField("medium", l.Medium()).Error("granularity of UNMAP not changed")
		}
	}
	s.storeDuplicates(st, t.now)
	s.limit(st)
	s.audit.Configure(auditOptions(st.cfg))
	if policies := s.policies.Load(); policies != nil {
		policies.Configure(st.cfg)
	}
}

// movePortals serves the portals that are new and closes those that are gone.
func (s *Service) movePortals(n *nextPortals, r *admin.Reloaded) {
	for _, p := range n.bound {
		s.log.WithField("portal", p.String()).Info("portal bound")
		s.offer(p)
		s.serving.Go(func() { s.serve(p) })
	}
	for _, p := range n.left {
		if p.listener == nil {
			continue
		}
		s.log.WithField("portal", p.String()).Info("portal closed")
		s.WithdrawSocket(p.Network(), p.String())
		result, err := s.server.ClosePortal(p.listener)
		if err != nil { // it is not served yet, or failed
			_ = p.listener.Close() // that of Serve says more
		}
		r.LogoutsRequested += len(result.LoggingOut)
		r.LockedFor = max(r.LockedFor, result.LongestLock)
	}
}

// leave ends what the next state does not have: commands, background work, views, files.
func (t *transition) leave(r *admin.Reloaded) {
	s := t.service
	ctx, cancel := context.WithTimeout(s.changes.ending, s.leaveLimit)
	defer cancel()
	var leaving sync.WaitGroup
	var mu sync.Mutex // guards r
	for medium, u := range t.now.units {
		if t.next.has(u) {
			continue
		}
		leaving.Go(func() {
			aborted := s.retire(ctx, medium, u)
			mu.Lock()
			defer mu.Unlock()
			if aborted {
				r.Aborted++
			}
		})
	}
	leaving.Wait()
	if err := t.now.close(t.next); err != nil {
		s.log.WithError(err).Error("media of LUNs or views that left not closed")
	}
	if err := t.next.views.forgetOthers(context.Background()); err != nil {
		s.log.WithError(err).Warn("auxiliary volumes of views that left not removed; the next start does that")
	}
	s.forgetForeign(context.Background(), t.next.cfg)
	s.admin.Reserve(nil)
}

// powerOffLimit bounds the removal of what a logical unit that leaves has stored.
const powerOffLimit = 2 * time.Second

// retire ends a logical unit that no target has any more, and reports whether commands of it
// were aborted.
func (s *Service) retire(ctx context.Context, medium string, u *unit) (aborted bool) {
	log := s.log.WithField("medium", medium)
	if err := u.lu.Drain(ctx); err != nil {
		log.WithError(err).Warn("LUN leaves with commands that did not end; they are aborted")
		s.server.AbortTasks(u.lu)
		aborted = true
	}
	s.copies.Remove(u.lu)
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerOffLimit)
	defer cancel()
	err := u.lu.Close(limited)
	// At a stop, reservations stay as those of other LUNs do; and where a peer takes over, until it
	// has them.
	if s.changes.ending.Err() == nil && !s.yields(medium) {
		err = errors.Join(err, u.lu.PowerOff(limited))
	}
	if err != nil {
		log.WithError(err).Warn("LUN that leaves: background work or stored state remains")
	}
	return aborted
}

// describe fills in what comes and what leaves.
func (t *transition) describe(r *admin.Reloaded) {
	before, after := t.now.served(), t.next.served()
	r.Came, r.Left = without(after, before), without(before, after)
	for i := range t.next.cfg.Targets {
		if name := t.next.cfg.Targets[i].Name; t.now.target(name) == nil {
			r.TargetsCame = append(r.TargetsCame, name)
		}
	}
	for i := range t.now.cfg.Targets {
		if name := t.now.cfg.Targets[i].Name; t.next.target(name) == nil {
			r.TargetsLeft = append(r.TargetsLeft, name)
		}
	}
}

// without returns the LUNs of list that are not in other.
func without(list, other []admin.LUNName) (rest []admin.LUNName) {
	known := make(map[admin.LUNName]bool, len(other))
	for _, l := range other {
		known[l] = true
	}
	for _, l := range list {
		if !known[l] {
			rest = append(rest, l)
		}
	}
	return rest
}

// served returns the LUNs that are served.
func (st *state) served() (all []admin.LUNName) {
	for t, l := range st.luns {
		if st.units[l.Medium()] != nil {
			all = append(all, admin.LUNName{Target: t.Name, Number: l.Number, Medium: l.Medium()})
		}
	}
	return all
}
