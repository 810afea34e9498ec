package scsi

import (
	"maps"
	"slices"
	"time"

	"odx/target/qos"
)

// accounts are what a logical unit has for the initiators that are there, and the counts
// of those that have left. The logical unit's mu guards them.
type accounts struct {
	by map[string]*account
	// departed are the counts of initiators that have left.
	departed Stats
	recent   recent
}

// account is what a logical unit has for one initiator, through all its nexuses.
type account struct {
	name string
	// limiter has the limits of the logical unit for the initiator.
	limiter *qos.Limiter
	nexuses int
	// ended are the counts of its nexuses that have ended.
	ended Stats
}

// join adds a nexus of an initiator.
func (a *accounts) join(lu *LogicalUnit, initiator string) *account {
	c := a.by[initiator]
	if c == nil {
		if a.by == nil {
			a.by = make(map[string]*account)
		}
		c = &account{name: initiator, limiter: lu.initiators.Join(initiator)}
		a.by[initiator] = c
	}
	c.nexuses++
	return c
}

// leave removes a nexus.
func (a *accounts) leave(lu *LogicalUnit, itl *itlNexus) {
	c := itl.account
	if c.nexuses--; c.nexuses > 0 {
		return
	}
	a.departed.add(&c.ended)
	delete(a.by, c.name)
	lu.initiators.Leave(c.name)
}

// fold keeps the counts of a nexus that has ended, with those of its initiator if that is
// still there.
func (a *accounts) fold(itl *itlNexus) {
	if itl.account.nexuses > 0 {
		itl.stats.Load().addTo(&itl.account.ended)
		return
	}
	itl.stats.Load().addTo(&a.departed)
}

// LUStats are the commands of a logical unit since it was created.
type LUStats struct {
	// Total are those of all initiators, also of those that have left.
	Total Stats
	// Initiators are those of the initiators that are there now, by name.
	Initiators map[string]Stats
}

// Stats returns the commands of the logical unit.
func (lu *LogicalUnit) Stats() LUStats {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	s := LUStats{Total: lu.accounts.departed, Initiators: make(map[string]Stats, len(lu.accounts.by))}
	for name, c := range lu.accounts.by {
		s.Initiators[name] = c.ended
	}
	for _, itl := range slices.AppendSeq(slices.Clone(lu.former), maps.Values(lu.nexuses)) {
		if itl.account.nexuses == 0 {
			itl.stats.Load().addTo(&s.Total)
			continue
		}
		own := s.Initiators[itl.account.name]
		itl.stats.Load().addTo(&own)
		s.Initiators[itl.account.name] = own
	}
	for _, own := range s.Initiators {
		s.Total.add(&own)
	}
	return s
}

// Stats returns the commands of the nexus since it was attached.
func (n *Nexus) Stats() Stats {
	n.target.mu.Lock()
	defer n.target.mu.Unlock()
	return n.stats()
}

// stats is Stats. The caller holds the target's mu.
func (n *Nexus) stats() Stats {
	s := n.ended
	if units := n.units.Load(); units != nil {
		for _, itl := range *units {
			itl.stats.Load().addTo(&s)
		}
	}
	return s
}

// SampleInterval is how often Target.Sample is to be called.
const SampleInterval = 10 * time.Second

// Minute are the commands of the last minute.
type Minute struct {
	// Span is the time in which they ended: about a minute, and less for what has not been
	// there for that long.
	Span time.Duration
	Stats
}

// recent are the counts at the last calls of Sample.
type recent struct {
	samples [7]struct {
		at    time.Time
		stats Stats
	}
	next int
}

// sample keeps counts, unless it has done so just now for another target.
func (r *recent) sample(at time.Time, now Stats) {
	last := &r.samples[(r.next+len(r.samples)-1)%len(r.samples)]
	if at.Sub(last.at) < SampleInterval/2 {
		return
	}
	r.samples[r.next].at, r.samples[r.next].stats = at, now
	r.next = (r.next + 1) % len(r.samples)
}

// minute returns what was counted since the oldest sample.
func (r *recent) minute(at time.Time, now Stats) Minute {
	for i := range r.samples {
		oldest := &r.samples[(r.next+i)%len(r.samples)]
		if oldest.at.IsZero() {
			continue
		}
		m := Minute{Span: at.Sub(oldest.at), Stats: now}
		for k := range m.Stats {
			m.Stats[k].since(&oldest.stats[k])
		}
		return m
	}
	return Minute{Stats: now}
}

// Sample keeps the counts of the target's logical units and nexuses, for LastMinute. The
// server calls it every SampleInterval; commands do no more than count.
func (tg *Target) Sample(at time.Time) {
	for _, lu := range tg.LUs() {
		total := lu.Stats().Total
		lu.mu.Lock()
		lu.accounts.recent.sample(at, total)
		lu.mu.Unlock()
	}
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for n := range tg.nexuses {
		n.recent.sample(at, n.stats())
	}
}

// LastMinute returns the commands of the last minute, of all initiators.
func (lu *LogicalUnit) LastMinute(now time.Time) Minute {
	total := lu.Stats().Total
	lu.mu.Lock()
	defer lu.mu.Unlock()
	return lu.accounts.recent.minute(now, total)
}

// LastMinute returns the commands of the nexus in the last minute.
func (n *Nexus) LastMinute(now time.Time) Minute {
	n.target.mu.Lock()
	defer n.target.mu.Unlock()
	return n.recent.minute(now, n.stats())
}
