package snapshots

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
)

// describe describes a snapshot; t is nil for one of no policy.
func (p *Policies) describe(v *backstore.Volume, t *taken, objects map[identity]*backstore.Volume) admin.Snapshot {
	s := admin.Snapshot{Name: nameOf(v), ID: fmt.Sprintf("%x", p.o.Store.Backstore().Identify(v.ID())), SizeBytes: v.Size(), Time: v.Created().UTC()}
	if t == nil {
		if origin, ok := v.Origin(); ok {
			s.Volume = nameOfSnapshot(v, origin)
		}
		return s
	}
	s.Policy, s.Run, s.Time = t.Policy, t.Run, t.Time.UTC()
	if of := objects[t.Of]; of != nil {
		s.Volume = nameOf(of)
	}
	return s
}

// Snapshots implements admin.SnapshotPolicies.
func (p *Policies) Snapshots(_ context.Context, volume string) ([]admin.Snapshot, error) {
	objects := p.ledger.objects()
	own := map[identity]taken{}
	for _, t := range p.ledger.of("") {
		own[t.ID] = t
	}
	list := []admin.Snapshot{}
	for id, v := range objects {
		t, isOwn := own[id]
		if admin.IsHidden(nameOf(v)) || !isOwn && !v.ReadOnly() {
			continue
		}
		s := p.describe(v, nil, objects)
		if isOwn {
			s = p.describe(v, &t, objects)
		}
		if volume == "" || s.Volume == volume {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b admin.Snapshot) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), a.Time.Compare(b.Time), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// SnapshotPolicies implements admin.SnapshotPolicies.
func (p *Policies) SnapshotPolicies(context.Context) ([]admin.PolicyStatus, error) {
	return p.Status(), nil
}

// Status describes the policies, without waiting for the disk.
func (p *Policies) Status() []admin.PolicyStatus {
	p.mu.Lock()
	policies := slices.Clone(p.policies)
	p.mu.Unlock()
	counts := map[string]int{}
	for _, t := range p.ledger.of("") {
		counts[t.Policy]++
	}
	list := []admin.PolicyStatus{}
	for _, l := range policies {
		c := l.configurationNow()
		if c == nil {
			continue
		}
		s := p.status(l.name, counts)
		s.Configured, s.Paused, s.Running = true, c.Paused, len(l.busy) > 0
		s.Schedule = scheduleText(&c.Schedule)
		if st, ok := p.ledger.state(l.name); ok && !c.Paused {
			s.Next = c.Schedule.Next(later(st.Last, p.now())).UTC()
		}
		list = append(list, s)
	}
	for _, name := range slices.Sorted(keys(counts)) {
		if !slices.ContainsFunc(list, func(s admin.PolicyStatus) bool { return s.Policy == name }) {
			list = append(list, p.status(name, counts))
		}
	}
	return list
}

func keys(counts map[string]int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name := range counts {
			if !yield(name) {
				return
			}
		}
	}
}

// status is what the records say of a policy.
func (p *Policies) status(name string, counts map[string]int) admin.PolicyStatus {
	st, _ := p.ledger.state(name)
	s := admin.PolicyStatus{Policy: name, Failures: st.Failures, LastError: st.Error, Snapshots: counts[name]}
	if !st.Success.IsZero() {
		s.LastSuccess = st.Success.UTC()
	}
	return s
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// scheduleText describes a schedule.
func scheduleText(s *conf.Schedule) string {
	if s.Every > 0 {
		return "every " + s.Every.String()
	}
	return fmt.Sprintf("at %s (%s)", strings.Join(s.At, ", "), s.Zone)
}
