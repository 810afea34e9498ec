package alerts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"odx/admin"
)

const (
	// settled is for how long a condition must be absent to be resolved: one that comes and
	// goes is one alert.
	settled = time.Minute
	// refusalTime is for how long refused copies are an alert.
	refusalTime = 10 * time.Minute
	// repeatEvery is how often an alert that stays is posted again.
	repeatEvery = 4 * time.Hour
)

// copiesRefused is the condition that follows from a counter.
const copiesRefused = "copies_refused"

// Name returns the name of the alert for a condition: OdxStoreFull for store_full.
func Name(condition string) string {
	var b strings.Builder
	b.WriteString("Odx")
	for _, word := range strings.Split(condition, "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// Names returns the names of all alerts, and their severities.
func Names() map[string]admin.Severity {
	names := map[string]admin.Severity{Name(copiesRefused): admin.Warning}
	for condition, severity := range admin.ConditionNames() {
		names[Name(condition)] = severity
	}
	return names
}

// event is the begin, the repetition or the end of an alert.
type event struct {
	name, summary string
	severity      admin.Severity
	began         time.Time
	ended         time.Time // zero: it goes on
}

// active is an alert that goes on.
type active struct {
	event
	seen   time.Time // when the condition was there last
	posted time.Time
}

// watch turns statuses into events.
type watch struct {
	active map[string]*active
	// refused is the number of refused copies at the last status, and refusal when it grew
	// last; known: there was a status.
	refused uint64
	refusal time.Time
	known   bool
}

// observe returns what has changed with a status.
func (w *watch) observe(now time.Time, s *admin.Status) (events []event) {
	for _, c := range append(s.Conditions(), w.refusals(now, s)...) {
		if e := w.seen(now, c); e != nil {
			events = append(events, *e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.active)) {
		a := w.active[name]
		if now.Sub(a.seen) < settled {
			continue
		}
		a.ended = now
		events = append(events, a.event)
		delete(w.active, name)
	}
	return events
}

// seen notes a condition, and returns an event if it is new, or was posted long ago.
func (w *watch) seen(now time.Time, c admin.Condition) *event {
	if w.active == nil {
		w.active = map[string]*active{}
	}
	a := w.active[c.Name]
	if a == nil {
		a = &active{event: event{name: Name(c.Name), severity: c.Severity, began: now}}
		w.active[c.Name] = a
	}
	a.seen, a.summary = now, c.Summary
	if !a.posted.IsZero() && now.Sub(a.posted) < repeatEvery {
		return nil
	}
	a.posted = now
	return &a.event
}

// refusals returns the condition of refused copies, if some were refused lately. Those
// before the first status are not new.
func (w *watch) refusals(now time.Time, s *admin.Status) []admin.Condition {
	refused := s.Vitals.RefusedCopies
	if w.known && refused > w.refused {
		w.refusal = now
	}
	w.refused, w.known = refused, true
	if w.refusal.IsZero() || now.Sub(w.refusal) >= refusalTime {
		return nil
	}
	return []admin.Condition{{Name: copiesRefused, Severity: admin.Warning, Summary: fmt.Sprintf(
		"copy commands were refused, and initiators copy by reading and writing; odx token stats has the reasons, the last one is %s", s.Vitals.LastRefusal)}}
}

// current returns the alerts that go on, for a webhook that is new.
func (w *watch) current() (events []event) {
	for _, name := range slices.Sorted(maps.Keys(w.active)) {
		events = append(events, w.active[name].event)
	}
	return events
}
