package target

import (
	"cmp"
	"os"
	"slices"

	"odx/admin"
	"odx/conf"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// served implements admin.Server.
type served struct{ service *Service }

// Resized implements admin.Server.
func (v served) Resized(volume string) {
	if lu := v.service.state.Load().unit((&conf.LUN{Volume: volume}).Medium()); lu != nil {
		lu.Resized()
	}
}

// Renewed implements admin.Server.
func (v served) Renewed(volume string) {
	if lu := v.service.state.Load().unit((&conf.LUN{Volume: volume}).Medium()); lu != nil {
		lu.Renewed()
	}
}

// FileUser implements admin.Server.
func (v served) FileUser(file string) string { return v.service.users.of(file) }

// WarnBytes implements admin.Server.
func (v served) WarnBytes() int64 { return v.service.space.threshold.Load() }

// CopyCommands implements admin.Server.
func (v served) CopyCommands() admin.CopyCommands {
	st := v.service.copies.Stats()
	c := admin.CopyCommands{
		Since: st.Since, Populated: st.Populated, Written: st.Written, Extended: st.Extended, Partial: st.Partial,
		PopulatedBytes: st.PopulatedBytes, PopulatedMovedBytes: st.PopulatedMovedBytes,
		WrittenBytes: st.WrittenBytes, WrittenMovedBytes: st.WrittenMovedBytes,
		ExtendedBytes: st.ExtendedBytes, ExtendedMovedBytes: st.ExtendedMovedBytes,
		Aborted: st.Aborted, Refused: st.Refused, RefusedBy: st.RefusedBy,
		Recent: make([]admin.CopyRefusal, 0, len(st.Recent)),
	}
	for _, r := range st.Recent {
		c.Recent = append(c.Recent, admin.CopyRefusal(r))
	}
	return c
}

// Status implements admin.Server.
func (v served) Status() admin.Status {
	s := v.service
	st := s.overview()
	for _, l := range s.LUNs() {
		st.LUNs = append(st.LUNs, admin.LUNStatus{
			Target: l.Target, Number: l.Number, Medium: l.Medium, SizeBytes: l.Size, ReadOnly: l.ReadOnly,
			URLs: append([]string{}, l.URLs...), Over: l.Over, Problem: l.Problem,
		})
	}
	for _, i := range s.server.Sessions() {
		st.Sessions = append(st.Sessions, s.session(&i))
	}
	return st
}

// overview is the status without LUNs and sessions.
func (s *Service) overview() admin.Status {
	st := admin.Status{Portals: s.Portals(), MissingPortals: s.MissingPortals(), Standbys: s.standbys.Attached(), PID: os.Getpid(), LUNs: []admin.LUNStatus{}, Sessions: []admin.Session{}}
	if cfg := s.state.Load().cfg; cfg.Pool != nil {
		st.Pool, st.Epoch = cfg.DataDir, s.store.Epoch()
	}
	st.Damage, st.MoreDamage = s.store.Damage()
	st.HandoversFailed, st.HandoverError = s.handovers.get()
	written := s.audit.Status()
	st.AuditProblem, st.AuditLost = written.Problem, written.Lost
	st.Vitals = s.vitals()
	return st
}

// session describes a session and its LUNs.
func (s *Service) session(i *iscsi.SessionInfo) admin.Session {
	out := admin.Session{
		Initiator: i.InitiatorName, Alias: i.InitiatorAlias, ISID: i.ISID, TSIH: i.TSIH, Target: i.TargetName,
		Addresses: []string{}, Since: i.Since.UTC(), Commands: i.Commands, LUNs: []admin.SessionLUN{},
		PortalGroup: i.PortalGroup, User: i.User, Negotiated: negotiated(i),
		Total: trafficOf(&i.Total), LastMinute: trafficOf(&i.LastMinute), LoggingOut: i.LoggingOut,
	}
	if len(i.Connections) > 0 {
		out.Portal = i.Connections[0].Local
	}
	for _, c := range i.Connections {
		out.Addresses = append(out.Addresses, c.Remote)
	}
	st := s.state.Load()
	for t, l := range st.luns {
		lu := st.unit(l.Medium())
		seen, readOnly, ok := seenAs(i.View, l.Number)
		if t.Name != i.TargetName || lu == nil || !ok {
			continue
		}
		out.LUNs = append(out.LUNs, admin.SessionLUN{
			Number: seen, Medium: l.Medium(), ReadOnly: readOnly || lu.ReadOnly(), Over: st.objectsOf(l),
		})
	}
	slices.SortFunc(out.LUNs, func(a, b admin.SessionLUN) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// seenAs returns the LUN of a session for the LUN number of the configuration.
func seenAs(view scsi.View, number uint16) (seen uint16, readOnly, ok bool) {
	if view == nil {
		return number, false, true
	}
	for seen, lu := range view {
		if lu.LUN == number {
			return seen, lu.ReadOnly, true
		}
	}
	return 0, false, false
}

// objectsOf names the volumes and the files that hold the blocks of a LUN.
func (st *state) objectsOf(l *conf.LUN) []string {
	return st.objectsUnder(deviceOf(l), []string{})
}

// objectsUnder appends what is below a device to list.
func (st *state) objectsUnder(d conf.Device, list []string) []string {
	switch {
	case d.Backing != "" || d.ISCSI != "":
		return list
	case d.View == "":
		return append(list, d.String())
	}
	for i := range st.cfg.Views {
		if v := &st.cfg.Views[i]; v.Name == d.View {
			for _, over := range v.Over {
				list = st.objectsUnder(over, list)
			}
		}
	}
	return list
}
