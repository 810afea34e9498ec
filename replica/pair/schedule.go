package pair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"

	"odx/backstore"
)

// Plan is what the configuration says of a replica.
type Plan struct {
	// A Source that ends with an asterisk selects volumes, or files, by the beginning of their
	// names. To then ends with one, too, which stands for the rest of a name; empty: as there.
	StartRequest
	// Next returns the first time after t at which a round begins.
	Next func(t time.Time) time.Time
	// BytesPerSecond bounds what crosses the network; 0: no limit.
	BytesPerSecond int64
	// Hash is as in RoundOptions.
	Hash bool
	// Keep is how many snapshots of the replica are kept.
	Keep int
	// Lag is how old the replica may become before that is a failure to be reported; 0: no
	// age is.
	Lag time.Duration
	// Paused: it is not brought up to date by itself.
	Paused bool
}

// The pauses between attempts after a failure, and how often former sources are notified that
// they are.
const (
	firstPause = 5 * time.Second
	lastPause  = 10 * time.Minute
	tellEvery  = 5 * time.Second
)

// idleWait is how long a replica without a plan, or a paused one, waits for another plan.
const idleWait = time.Hour

// parallelRounds bounds the rounds that run at the same time by schedule.
const parallelRounds = 4

// limitBurst is the burst of a limit in bytes: a request reads no more.
const limitBurst = 4 << 20

// schedule is what runs the plans of a manager.
type schedule struct {
	mu sync.Mutex // guards what follows
	// entries are the plans as they were set; offered is what peers have for those that select, by
	// the name of the entry; plans is what follows of them, by the name of the replica.
	entries []Plan
	offered map[string]offer
	plans   map[string]Plan
	// limits are those of entries, by name: what an entry selects has one together.
	limits map[string]*rate.Limiter
	// followed are the plans that a goroutine brings up to date.
	followed map[string]bool
	// change is closed when the plans change.
	change chan struct{}
}

// SetPlans replaces the plans. A round that is under way goes on, with the limit that the new
// plan gives it.
func (m *Manager) SetPlans(list []Plan) {
	all, err := m.records()
	if err != nil {
		m.log.WithError(err).Warn("replicas not known")
	}
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := map[string]*rate.Limiter{}
	for _, p := range list {
		if old := slices.IndexFunc(s.entries, func(e Plan) bool { return e.Name == p.Name }); old < 0 || s.entries[old].Source != p.Source || s.entries[old].Peer != p.Peer {
			delete(s.offered, p.Name) // to another one
		}
		l := s.limits[p.Name]
		if l == nil {
			l = rate.NewLimiter(rate.Inf, limitBurst)
		}
		if l.SetLimit(rate.Inf); p.BytesPerSecond > 0 {
			l.SetLimit(rate.Limit(p.BytesPerSecond))
		}
		limits[p.Name] = l
	}
	maps.DeleteFunc(s.offered, func(name string, _ offer) bool { return limits[name] == nil })
	s.entries, s.limits = slices.Clone(list), limits
	s.plans, _ = effective(s.entries, s.offered, all)
	s.changedLocked()
}

// changedLocked says that the plans have changed.
func (s *schedule) changedLocked() {
	if s.change != nil {
		close(s.change)
	}
	s.change = make(chan struct{})
}

// plan returns the plan of a replica, and a channel that is closed when plans change.
func (m *Manager) plan(name string) (p Plan, ok bool, changed <-chan struct{}) {
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.change == nil {
		s.change = make(chan struct{})
	}
	p, ok = s.plans[name]
	return p, ok, s.change
}

// unfollowed returns the names of the plans that nothing brings up to date yet; the caller does
// from now on.
func (m *Manager) unfollowed() (list []string, changed <-chan struct{}) {
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.change == nil {
		s.change = make(chan struct{})
	}
	if s.followed == nil {
		s.followed = map[string]bool{}
	}
	for name := range s.plans {
		if !s.followed[name] {
			s.followed[name] = true
			list = append(list, name)
		}
	}
	return list, s.change
}

// leave reports whether there is no plan of that name any more; then it is not followed.
func (m *Manager) leave(name string) bool {
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, planned := s.plans[name]; planned {
		return false
	}
	delete(s.followed, name)
	return true
}

// Planned returns the options of rounds that the plan of a replica gives; the zero value
// without a plan.
func (m *Manager) Planned(name string) RoundOptions {
	s := &m.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.plans[name]
	return RoundOptions{Limit: s.limits[p.Entry], Keep: p.Keep, Hash: p.Hash}
}

// Run brings the replicas of the plans up to date until ctx ends, and tells former sources
// that they are.
func (m *Manager) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { m.tellAll(ctx) })
	free := make(chan struct{}, parallelRounds)
	for ctx.Err() == nil {
		names, changed := m.unfollowed()
		for _, name := range names {
			running.Go(func() { m.follows(ctx, name, free) })
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case job := <-m.jobs:
			running.Go(func() { job(ctx) })
		}
	}
}

// follows does what one plan says until ctx ends, as long as there is the plan.
func (m *Manager) follows(ctx context.Context, name string, free chan struct{}) {
	pause := &backoff.ExponentialBackOff{InitialInterval: firstPause, MaxInterval: lastPause, Multiplier: 2, RandomizationFactor: 0.2}
	pause.Reset()
	due := time.Now() // what was missed while the process did not run is made up once
	for {
		plan, ok, changed := m.plan(name)
		if !ok {
			if m.leave(name) {
				return
			}
			continue
		}
		wait := time.Until(due)
		if plan.Paused {
			wait = idleWait
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
			timer.Stop()
			if next, ok, _ := m.plan(name); ok {
				if at := next.Next(time.Now()); at.Before(due) {
					due = at
				}
			}
			continue
		case <-timer.C:
			if plan.Paused {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case free <- struct{}{}:
		}
		do := m.scheduled
		if _, selects := isSelector(name); selects {
			do = m.selectSources
		}
		err := do(ctx, plan)
		<-free
		m.look(ctx)
		due = plan.Next(time.Now())
		if err == nil || ctx.Err() != nil {
			pause.Reset()
			continue
		}
		if again := time.Now().Add(pause.NextBackOff()); again.Before(due) {
			due = again
		}
		m.log.WithField("replica", plan.Name).WithError(err).Warn("replica is not up to date")
	}
}

// scheduled does one round of a plan. What needs an administrator is no failure of a round.
func (m *Manager) scheduled(ctx context.Context, p Plan) error {
	r, err := m.named(p.Name)
	if errors.Is(err, ErrNoPair) {
		if err = m.Start(ctx, p.StartRequest); err == nil {
			r, err = m.named(p.Name)
		}
	}
	if err != nil {
		m.failed(p.Name, err)
		return err
	}
	if r.Role != Replica || r.Paused || r.Orphan {
		return nil
	}
	if err := r.matches(p); err != nil {
		m.of(r.ID).end(err)
		return err
	}
	_, err = m.Round(ctx, p.Name, m.Planned(p.Name))
	if errors.Is(err, ErrBusy) || errors.Is(err, ErrPaused) {
		return nil
	}
	return err
}

// matches returns why a plan is not that of a pair. A pair that has changed its roles once
// has its source where its replica was.
func (r *record) matches(p Plan) error {
	if r.Epoch > 1 || r.PeerName == p.Peer && r.PeerObject == p.Source {
		return nil
	}
	return fmt.Errorf("%w: replica %s follows %s of %s, and the configuration says %s of %s; choose another name for it, or forget the replica", backstore.ErrInvalid, r.Name, r.PeerObject, r.PeerName, p.Source, p.Peer)
}

// failed notes why a replica could not be started.
func (m *Manager) failed(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteUnstarted(name, err)
}

// noteUnstarted is failed for a caller that has locked mu.
func (m *Manager) noteUnstarted(name string, err error) {
	if m.unstarted == nil {
		m.unstarted = map[string]error{}
	}
	m.unstarted[name] = err
}

// Unstarted returns why replicas of the plans could not be started, by name, and why entries
// that select cannot, by the name of the entry and an asterisk.
func (m *Manager) Unstarted() map[string]error {
	all, err := m.records()
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := map[string]error{}
	for name, err := range m.unstarted {
		list[name] = err
	}
	for _, r := range all {
		delete(list, r.Name)
	}
	for name, err := range list {
		_, planned, _ := m.plan(name)
		entry, selects := isSelector(name)
		if !planned || selects {
			delete(list, name)
		}
		if planned && selects {
			list[entry+"*"] = err
		}
	}
	return list
}

// tellAll tells former sources that they are, until ctx ends.
func (m *Manager) tellAll(ctx context.Context) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		all, err := m.records()
		if err != nil {
			m.log.WithError(err).Warn("replicas not known")
		}
		for _, r := range all {
			if r.Role != Source || !r.Untold || ctx.Err() != nil {
				continue
			}
			if err := m.tell(ctx, r.ID); err != nil {
				m.log.WithField("replica", r.Name).WithError(err).Debug("the other side does not know yet that this one is the source")
			}
		}
		m.serveArrivals(ctx)
		m.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look notes what an administrator has to act upon.
func (m *Manager) look(ctx context.Context) {
	found, err := m.Troubles(ctx)
	if err != nil {
		return // the store says so itself
	}
	list := []string{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, name+": "+found[name])
	}
	m.troubles.Store(&list)
}

// LastTroubles returns, without waiting for the disk, what an administrator has to act upon,
// as it was some seconds ago.
func (m *Manager) LastTroubles() []string {
	if list := m.troubles.Load(); list != nil {
		return *list
	}
	return nil
}

// Troubles says what an administrator has to act upon, by the name of the replica.
func (m *Manager) Troubles(ctx context.Context) (map[string]string, error) {
	list, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for name, err := range m.Unstarted() {
		found[name] = "not started: " + err.Error()
	}
	for _, s := range list {
		plan, planned, _ := m.plan(s.Name)
		var text []string
		switch {
		case s.Moving:
		case s.Role == Former:
			text = append(text, "peer "+s.Peer+" has taken over; this side is frozen and not served")
		case s.Orphan:
			text = append(text, "peer "+s.Peer+" has forgotten it; `odx replicate forget "+s.Name+"` makes it a volume of its own")
		case s.Role == Source && s.Untold && s.Epoch > 1:
			text = append(text, "peer "+s.Peer+" does not know yet that this side has taken over")
		case s.Role == Replica && planned && plan.Lag > 0 && s.Behind > plan.Lag:
			text = append(text, fmt.Sprintf("%v behind its source, more than %v", s.Behind.Round(time.Second), plan.Lag))
		}
		if s.Role == Replica && planned && s.Last.Problem != "" && len(text) > 0 {
			text = append(text, "last round: "+s.Last.Problem)
		}
		if len(text) > 0 {
			found[s.Name] = strings.Join(text, "; ")
		}
	}
	return found, nil
}
