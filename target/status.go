package target

import (
	"cmp"
	"slices"
	"time"

	"odx/backstore"
	"odx/conf"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// Status is what a service serves, and to whom.
type Status struct {
	// Portals are the addresses where initiators are answered.
	Portals []string `json:"portals"`
	// MissingPortals do not answer: they could not be bound, and are tried again.
	MissingPortals []MissingPortal `json:"missing_portals,omitempty"`
	// LUNs are in the order of the configuration.
	LUNs []LUNStatus `json:"luns"`
	// Sessions are the initiators that are logged in, the oldest first.
	Sessions []Session `json:"sessions"`
	// Damage is what was found damaged of the store since it was opened, at most 100
	// things, and MoreDamage how many are not in it.
	Damage     []backstore.Damaged `json:"damage,omitempty"`
	MoreDamage int                 `json:"more_damage,omitempty"`
}

// LUNStatus describes a LUN of the configuration.
type LUNStatus struct {
	Target string `json:"target"`
	Number uint16 `json:"lun"`
	// Medium is what the LUN's blocks live on, for example "volume src".
	Medium    string   `json:"medium"`
	SizeBytes int64    `json:"size_bytes"`
	ReadOnly  bool     `json:"read_only"`
	URLs      []string `json:"urls"`
	// Over are the volumes, and the files with FilePrefix, that the blocks are in.
	Over []string `json:"over"`
	// Problem says why the LUN is not served.
	Problem string `json:"problem,omitempty"`
}

// Session is an initiator that is logged in to a target, or to discovery.
type Session struct {
	Initiator string `json:"initiator"`
	Alias     string `json:"alias,omitempty"`
	// ISID is in hexadecimal.
	ISID string `json:"isid"`
	TSIH uint16 `json:"tsih"`
	// Target is empty for a discovery session.
	Target string `json:"target,omitempty"`
	// Addresses are the initiator's, one for each connection.
	Addresses []string  `json:"addresses"`
	Since     time.Time `json:"since"`
	// Commands is how many are outstanding.
	Commands int          `json:"commands"`
	LUNs     []SessionLUN `json:"luns"`
}

// SessionLUN is a LUN as a session finds it.
type SessionLUN struct {
	Number   uint16 `json:"lun"`
	Medium   string `json:"medium"`
	ReadOnly bool   `json:"read_only"`
	// Over is that of the LUNStatus.
	Over []string `json:"over"`
}

// Status describes what is served; false for a service that serves nothing.
func (s *Service) Status() (Status, bool) {
	if s.server == nil {
		return Status{}, false
	}
	st := Status{Portals: s.Portals(), MissingPortals: s.MissingPortals(), LUNs: []LUNStatus{}, Sessions: []Session{}}
	st.Damage, st.MoreDamage = s.store.Damage()
	for _, l := range s.LUNs() {
		st.LUNs = append(st.LUNs, LUNStatus{
			Target: l.Target, Number: l.Number, Medium: l.Medium, SizeBytes: l.Size, ReadOnly: l.ReadOnly,
			URLs: append([]string{}, l.URLs...), Over: l.Over, Problem: l.Problem,
		})
	}
	for _, i := range s.server.Sessions() {
		st.Sessions = append(st.Sessions, s.session(&i))
	}
	return st, true
}

// session describes a session and the LUNs that it sees.
func (s *Service) session(i *iscsi.SessionInfo) Session {
	out := Session{
		Initiator: i.InitiatorName, Alias: i.InitiatorAlias, ISID: i.ISID, TSIH: i.TSIH, Target: i.TargetName,
		Addresses: append([]string{}, i.Connections...), Since: i.Since.UTC(), Commands: i.Commands, LUNs: []SessionLUN{},
	}
	for _, t := range s.cfg.Targets {
		if t.Name != i.TargetName {
			continue
		}
		for n := range t.LUNs {
			l := &t.LUNs[n]
			unit := s.units[l.Medium()]
			seen, readOnly, ok := seenAs(i.View, l.Number)
			if unit == nil || !ok {
				continue
			}
			out.LUNs = append(out.LUNs, SessionLUN{
				Number: seen, Medium: l.Medium(), ReadOnly: readOnly || unit.ReadOnly(), Over: s.spacesOf(l),
			})
		}
	}
	slices.SortFunc(out.LUNs, func(a, b SessionLUN) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// seenAs returns where a session finds the LUN that the configuration has at
// number.
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

// spacesOf names the volumes and the files that the blocks of a LUN are in.
func (s *Service) spacesOf(l *conf.LUN) []string {
	return s.spacesUnder(conf.Device{View: l.View, Volume: l.Volume, File: l.File, Backing: l.Backing}, []string{})
}

// spacesUnder appends what is under a device to list.
func (s *Service) spacesUnder(d conf.Device, list []string) []string {
	switch {
	case d.Backing != "":
		return list
	case d.View == "":
		return append(list, d.String())
	}
	for i := range s.cfg.Views {
		if v := &s.cfg.Views[i]; v.Name == d.View {
			for _, over := range v.Over {
				list = s.spacesUnder(over, list)
			}
		}
	}
	return list
}
