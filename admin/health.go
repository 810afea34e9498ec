package admin

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Vitals are what the health of a server is judged by, in addition to what it serves. None of them
// waits for the disk.
type Vitals struct {
	// StoreFailure is why the store is read-only until the next start, "" if it is not.
	StoreFailure string
	// CheckpointFailure is why the last checkpoint failed, "" if it did not.
	CheckpointFailure string
	// StoreFull: the file system of the store has no room for new data.
	StoreFull bool
	// UsedBytes of the capacity are not free, whatever takes them; FreeBytes is how much
	// new data fits, and WarnBytes the use at which initiators are warned, 0 for never.
	UsedBytes, FreeBytes, WarnBytes int64
	// Mirrors are the mirrors among the views.
	Mirrors []Mirror
	// Replicas say what is wrong with replicas, and with what replicas follow: each begins
	// with the name.
	Replicas []string
	// RefusedCopies counts the copy commands that were refused, other than because of a
	// unit attention, after which initiators send them again; LastRefusal is why the last
	// one was.
	RefusedCopies uint64
	LastRefusal   string
	// Policies are those of snapshots.
	Policies []PolicyStatus
	// Stalled is for how long a flush of the disk, or figures of the store, have been waited
	// for; 0 for less than 10 seconds.
	Stalled time.Duration
}

// Mirror describes a mirror.
type Mirror struct {
	View string
	// Legs is how many it has, InSync how many of those have the data.
	Legs, InSync int
}

// Severity says how soon an administrator has to act.
type Severity string

// The severities.
const (
	// Warning: within days; initiators notice nothing yet.
	Warning Severity = "warning"
	// Critical: now; initiators get errors, data is damaged, or can be lost.
	Critical Severity = "critical"
)

// Condition is something that an administrator has to act upon. Its name is durable:
// metrics and alerts have it.
type Condition struct {
	Name     string
	Severity Severity
	// Summary says what is wrong and what to do, in one sentence.
	Summary string
}

// Health sums up conditions.
type Health string

// The states, the best first.
const (
	Healthy  Health = "ok"
	Degraded Health = "degraded" // there is a condition, and LUNs are served
	Failing  Health = "failing"  // not ready: see Status.Unready
)

// kind is a kind of condition.
type kind struct {
	name     string
	severity Severity
	// unready: a server with the condition is not ready.
	unready bool
	// detect returns the summary, "" without the condition.
	detect func(*Status) string
}

// roomBytes is the least free space with which a store is not full: initiators write up to
// that at once.
const roomBytes = 1 << 20

// kinds are all kinds of conditions, the gravest first.
func kinds() []kind {
	return []kind{
		{"store_failed", Critical, true, func(s *Status) string {
			return after("the store is read-only; restart odx serve, which reads the journal: ", s.Vitals.StoreFailure)
		}},
		{"portals_closed", Critical, true, func(s *Status) string {
			if len(s.Portals) > 0 {
				return ""
			}
			return "no portal is bound, so that no initiator can connect; see portals of the configuration"
		}},
		{"store_stalled", Critical, false, func(s *Status) string {
			if s.Vitals.Stalled == 0 {
				return ""
			}
			return fmt.Sprintf("the store has not answered for %v; look at its disk", s.Vitals.Stalled.Round(time.Second))
		}},
		{"damage", Critical, false, damaged},
		{"store_full", Critical, false, func(s *Status) string {
			if !s.Vitals.StoreFull && s.Vitals.FreeBytes >= roomBytes {
				return ""
			}
			return "the store is full, and writes of new data fail; unmap or delete data, or give the store more room"
		}},
		{"checkpoint_failing", Critical, false, func(s *Status) string {
			return after("the last checkpoint failed; look at the disk of the store: ", s.Vitals.CheckpointFailure)
		}},
		{"lun_not_served", Critical, false, unserved},
		{"mirror_degraded", Warning, false, degradedMirrors},
		{"replica_behind", Warning, false, func(s *Status) string {
			if len(s.Vitals.Replicas) == 0 {
				return ""
			}
			return "replicas need attention (odx replicate list): " + strings.Join(s.Vitals.Replicas, "; ")
		}},
		{"store_nearly_full", Warning, false, nearlyFull},
		{"snapshots_failing", Warning, false, failingPolicies},
		{"audit_not_written", Warning, false, func(s *Status) string {
			return after("changes are in the log only, since the audit file cannot be written: ", s.AuditProblem)
		}},
		{"portal_missing", Warning, false, func(s *Status) string {
			if len(s.MissingPortals) == 0 || len(s.Portals) == 0 {
				return ""
			}
			p := s.MissingPortals[0]
			return fmt.Sprintf("%d of the portals cannot be bound, the first one is %s: %s", len(s.MissingPortals), p.Address, p.Problem)
		}},
	}
}

// ConditionNames returns the names of all conditions that there can be, and their
// severities.
func ConditionNames() map[string]Severity {
	names := map[string]Severity{}
	for _, k := range kinds() {
		names[k.name] = k.severity
	}
	return names
}

// Conditions returns what an administrator has to act upon, the gravest first.
func (s *Status) Conditions() []Condition {
	found := []Condition{}
	for _, k := range kinds() {
		if summary := k.detect(s); summary != "" {
			found = append(found, Condition{k.name, k.severity, summary})
		}
	}
	return found
}

// Unready returns why the server is not ready to serve, "" if it is. Damage, a full store
// and a LUN that is left out leave it ready: the others are served.
func (s *Status) Unready() string {
	for _, k := range kinds() {
		if summary := k.detect(s); k.unready && summary != "" {
			return summary
		}
	}
	return ""
}

// Health sums up the conditions.
func (s *Status) Health() Health {
	switch {
	case s.Unready() != "":
		return Failing
	case len(s.Conditions()) > 0:
		return Degraded
	}
	return Healthy
}

// after returns text with words before it, "" for "".
func after(words, text string) string {
	if text == "" {
		return ""
	}
	return words + text
}

func damaged(s *Status) string {
	if len(s.Damage) == 0 {
		return ""
	}
	d := s.Damage[0]
	return fmt.Sprintf("stored data is damaged in %d places, the first one is %s (%s); odx store scrub lists what it belongs to",
		len(s.Damage)+s.MoreDamage, d.What, d.Error)
}

func unserved(s *Status) string {
	count, first := 0, ""
	for i := range s.LUNs {
		l := &s.LUNs[i]
		if l.Problem == "" {
			continue
		}
		if count++; count == 1 {
			first = fmt.Sprintf("%s/%d: %s", l.Target, l.Number, l.Problem)
		}
	}
	if count == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d LUNs are not served, the first one is %s", count, len(s.LUNs), first)
}

func degradedMirrors(s *Status) string {
	var names []string
	for _, m := range s.Vitals.Mirrors {
		if m.InSync < m.Legs {
			names = append(names, fmt.Sprintf("%s (%d of %d)", m.View, m.InSync, m.Legs))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "mirrors have legs that are not in sync; the next start copies the data to them: " + strings.Join(names, ", ")
}

func nearlyFull(s *Status) string {
	v := &s.Vitals
	if v.WarnBytes == 0 || v.UsedBytes < v.WarnBytes {
		return ""
	}
	return fmt.Sprintf("%s of the store are used, initiators are warned from %s on, and %s are free",
		humanize.IBytes(uint64(v.UsedBytes)), humanize.IBytes(uint64(v.WarnBytes)), humanize.IBytes(uint64(max(v.FreeBytes, 0))))
}
