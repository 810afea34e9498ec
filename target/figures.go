package target

import (
	"context"
	"fmt"
	"strings"
	"time"

	"odx/admin"
	"odx/conf"
	"odx/latency"
	"odx/offload/view"
	"odx/target/copymgr"
	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// Overview implements admin.Server.
func (v served) Overview() admin.Status {
	o, st := v.service.overview(), v.service.state.Load()
	for t, l := range st.luns {
		lun := admin.LUNStatus{Target: t.Name, Number: l.Number, Medium: l.Medium()}
		if err := st.media.leftOut[lun.Medium]; err != nil && st.unit(lun.Medium) == nil {
			lun.Problem = err.Error()
		}
		o.LUNs = append(o.LUNs, lun)
	}
	return o
}

// CheckProgress takes the locks that the commands and logins of all initiators take, none of
// which is held while the disk is waited for. If it does not return, the process is to be
// replaced.
func (s *Service) CheckProgress() {
	s.server.Counts()
	for _, u := range s.state.Load().units {
		u.lu.Totals()
	}
}

// Figures implements admin.Server.
func (v served) Figures() admin.ServerFigures {
	s := v.service
	f := admin.ServerFigures{Media: []admin.MediumFigures{}, Targets: []admin.TargetFigures{}, Copies: v.CopyCommands()}
	f.Peers, f.Holds = s.peers.list(), s.peers.figures()
	st, counts := s.state.Load(), s.server.Counts()
	listed := map[string]bool{}
	for _, l := range st.luns {
		medium := l.Medium()
		lu := st.unit(medium)
		if lu == nil || listed[medium] {
			continue
		}
		listed[medium] = true
		m := mediumFigures(medium, lu.Totals())
		m.SizeBytes = lu.Volume().Size()
		f.Media = append(f.Media, m)
	}
	for i := range st.cfg.Targets {
		c := counts[st.cfg.Targets[i].Name]
		f.Targets = append(f.Targets, admin.TargetFigures{
			Target: st.cfg.Targets[i].Name, Sessions: c.Sessions, Connections: c.Connections, Commands: c.Commands,
		})
	}
	f.DiscoverySessions = counts[""].Sessions
	f.Replicas = s.replicaFigures()
	if s.migrations != nil {
		f.Migrations, _ = s.migrations.Migrations(context.Background()) // never fails
	}
	return f
}

// mediumFigures describes the commands of a logical unit.
func mediumFigures(medium string, s scsi.Stats) admin.MediumFigures {
	m := admin.MediumFigures{Medium: medium}
	for kind := range scsi.Kind(scsi.Kinds) {
		c := &s[kind]
		m.Kinds = append(m.Kinds, admin.KindFigures{
			Kind: kind.String(), Commands: c.Commands, Bytes: c.Bytes, Errors: c.Errors,
			Latency: admin.Durations{Sum: c.Latency.Sum, Bounds: latency.Bounds(), Counts: c.Latency.Buckets[:]},
		})
	}
	return m
}

// stalledAfter is how long a flush of the disk may take until the store counts as stalled.
const stalledAfter = 10 * time.Second

// vitals returns what the health of the service is judged by, without waiting for the disk.
func (s *Service) vitals() admin.Vitals {
	ill := s.store.Ailments()
	v := admin.Vitals{
		StoreFailure: words(ill.Failed), CheckpointFailure: words(ill.Checkpoint), StoreFull: ill.Full,
		UsedBytes: s.space.occupied(), FreeBytes: s.space.left.Load(), WarnBytes: s.space.threshold.Load(),
		Mirrors: []admin.Mirror{}, Policies: s.policyStatus(),
	}
	if ill.Syncing >= stalledAfter {
		v.Stalled = ill.Syncing
	}
	v.Replicas = s.replicas.LastTroubles()
	v.RefusedCopies, v.LastRefusal = refusals(s.copies.Stats())
	st := s.state.Load()
	for i := range st.cfg.Views {
		name := st.cfg.Views[i].Name
		if m, ok := st.views.devices[name].(*view.Mirror); ok && st.cfg.Views[i].Kind == conf.ViewMirror {
			v.Mirrors = append(v.Mirrors, admin.Mirror{View: name, Legs: len(m.Legs), InSync: len(m.InSync())})
		}
	}
	return v
}

// refusals counts refused copy commands, but for those with a unit attention condition (28h
// to 2Ah and 3Fh of SPC-4 annex F), and describes the last one.
func refusals(c copymgr.Stats) (count uint64, last string) {
	attention := func(sense string) bool {
		return strings.HasPrefix(sense, "28h") || strings.HasPrefix(sense, "29h") || strings.HasPrefix(sense, "2Ah") || strings.HasPrefix(sense, "3Fh")
	}
	for sense, n := range c.RefusedBy {
		if !attention(sense) {
			count += n
		}
	}
	for _, r := range c.Recent {
		if !strings.HasPrefix(r.Sense, sense.KeyUnitAttention.String()) {
			return count, fmt.Sprintf("%s by %s: %s", r.Command, r.Initiator, r.Reason)
		}
	}
	return count, ""
}

// words returns an error in words, "" for nil.
func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
