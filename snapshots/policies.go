package snapshots

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/audit"
	"odx/backstore"
	"odx/conf"
)

// Store is the open store of a server.
type Store interface {
	Backstore() *backstore.Store
	// DeleteByID deletes a volume or file by its identity; admin.ErrInUse if it is in use.
	DeleteByID(ctx context.Context, id [16]byte) error
}

// Keeper knows which snapshots must stay, whatever a policy says.
type Keeper interface {
	// Needed reports whether something needs the volume, or with admin.FilePrefix the file,
	// of that name, and what that is.
	Needed(snapshot string) (by string, ok bool)
}

// Options are what Policies need.
type Options struct {
	Store Store
	// Keeper is nil if nothing but policies and the configuration needs snapshots.
	Keeper Keeper
	// Record records what a policy changes by itself, for the audit log.
	Record func(ctx context.Context, c audit.Change)
	Log    *logrus.Entry
	// Now is time.Now; tests set the clock.
	Now func() time.Time
}

const (
	// recheck is how long the clock is not looked at: a machine that slept, or whose clock
	// was set, is late by no more.
	recheck = time.Minute
	// clockTolerance is by how much the clock may be set back without notice.
	clockTolerance = time.Minute
	// The waits after runs that failed double from retryFirst to retryMost.
	retryFirst, retryMost = time.Minute, time.Hour
	// maxRunning bounds the runs that are under way.
	maxRunning = 4
)

// Policies takes snapshots by the policies of a configuration until Close.
type Policies struct {
	o      Options
	ledger *ledger
	slots  chan struct{} // holds a value for each run under way
	ctx    context.Context
	cancel context.CancelFunc
	kill   context.CancelFunc // of programs that are run after snapshots
	after  context.Context
	work   sync.WaitGroup

	mu       sync.Mutex // guards the rest
	closed   bool
	limit    int // of snapshots of all policies
	policies []*policy
	// busy are those of policies by name: one that left the configuration and is back can
	// have a run under way. interrupted are the policies with a run that the end of the
	// process before interrupted, and that a program has to undo.
	busy        map[string]chan struct{}
	interrupted map[string]bool
}

// policy is a policy of the configuration, or one that has just left it.
type policy struct {
	name    string
	changed chan struct{} // has room for one value
	busy    chan struct{} // holds a value during a run

	mu    sync.Mutex           // guards the rest
	conf  *conf.SnapshotPolicy // nil: it has left the configuration
	retry time.Time            // no run by itself before; zero: nothing failed
	ended bool                 // its goroutine has ended
}

// Open begins to take snapshots by the policies of a configuration. It ends what the end of
// the process before interrupted.
func Open(ctx context.Context, cfg *conf.Config, o Options) (*Policies, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	l, err := openLedger(o.Store.Backstore(), o.Log)
	if err != nil {
		return nil, fmt.Errorf("records of snapshots: %w", err)
	}
	p := &Policies{o: o, ledger: l, slots: make(chan struct{}, maxRunning), busy: map[string]chan struct{}{}, interrupted: map[string]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.after, p.kill = context.WithCancel(context.Background())
	if err := p.sweep(ctx); err != nil {
		o.Log.WithError(err).Warn("records of snapshots that are gone: not deleted")
	}
	p.endOthers(ctx)
	p.Configure(cfg)
	return p, nil
}

// Configure makes the policies of a configuration those by which snapshots are taken. A run
// that is under way goes on as it began. What a policy has taken that is not in it any more
// stays.
func (p *Policies) Configure(cfg *conf.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.limit = cfg.Limits.Snapshots
	next := make([]*policy, 0, len(cfg.Snapshots))
	for i := range cfg.Snapshots {
		c := cfg.Snapshots[i]
		at := slices.IndexFunc(p.policies, func(old *policy) bool { return old.name == c.Name })
		if at < 0 || !p.policies[at].set(&c) {
			if p.busy[c.Name] == nil {
				p.busy[c.Name] = make(chan struct{}, 1)
			}
			started := &policy{name: c.Name, changed: make(chan struct{}, 1), busy: p.busy[c.Name], conf: &c}
			next = append(next, started)
			p.work.Go(func() { p.follow(started) })
			continue
		}
		next = append(next, p.policies[at])
	}
	for _, old := range p.policies {
		if !slices.Contains(next, old) {
			old.set(nil)
		}
	}
	p.policies = next
}

// set gives a policy another configuration; nil ends it. It reports whether its goroutine has
// not ended.
func (l *policy) set(c *conf.SnapshotPolicy) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conf = c
	l.retry = time.Time{}
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return !l.ended
}

func (l *policy) configuration() *conf.SnapshotPolicy {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = l.conf == nil
	return l.conf
}

// Close ends what is under way: a program that runs before snapshots is killed, one after
// them may run until ctx ends.
func (p *Policies) Close(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	defer p.kill()
	defer context.AfterFunc(ctx, p.kill)()
	p.work.Wait()
}

// follow runs a policy when it is due, until it leaves the configuration or ctx ends.
func (p *Policies) follow(l *policy) {
	if p.isInterrupted(l.name) {
		l.busy <- struct{}{}
		if c := l.configurationNow(); c != nil {
			p.endInterrupted(c)
		}
		<-l.busy
	}
	for p.ctx.Err() == nil {
		c := l.configuration()
		if c == nil {
			return
		}
		wait, due := p.untilDue(l, c)
		if !due {
			timer := time.NewTimer(min(wait, recheck))
			select {
			case <-p.ctx.Done():
			case <-l.changed:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		done := p.run(p.ctx, l, c)
		p.recordRun(&done)
	}
}

// untilDue returns how long it is until the next run.
func (p *Policies) untilDue(l *policy, c *conf.SnapshotPolicy) (wait time.Duration, due bool) {
	now := p.now()
	s, known := p.ledger.state(l.name)
	known = known && !s.Last.IsZero()
	if !known || s.Last.After(now.Add(clockTolerance)) {
		if known {
			p.o.Log.WithField("policy", l.name).WithField("before", s.Last).Warn("the clock was set back; the policy goes on from now on")
		}
		s.Last = now
		if err := p.ledger.changeState(p.ctx, l.name, func(s *state) { s.Last = now }); err != nil && p.ctx.Err() == nil {
			p.o.Log.WithError(err).Warn("when a policy of snapshots ran last cannot be stored")
		}
	}
	if c.Paused {
		return recheck, false
	}
	next := c.Schedule.Next(s.Last)
	switch {
	case next.IsZero():
		return recheck, false
	case next.After(now):
		return next.Sub(now), false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.retry.Sub(now); wait > 0 && wait <= retryMost {
		return wait, false
	}
	return 0, true
}

// retryAfter sets when a run that failed is tried again: after a time that grows with the
// number of failures, and when the policy is due next at the latest.
func (l *policy) retryAfter(now time.Time, failures int, c *conf.SnapshotPolicy) time.Time {
	wait := retryMost
	if failures < 10 {
		wait = min(retryFirst<<max(failures-1, 0), retryMost)
	}
	at := now.Add(wait)
	if next := c.Schedule.Next(now); !next.IsZero() && next.Before(at) {
		at = next
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retry = at
	return at
}

// now returns the time, without the clock that does not know of time that was set.
func (p *Policies) now() time.Time { return p.o.Now().Round(0) }

// isInterrupted reports whether a run is to be undone.
func (p *Policies) isInterrupted(policy string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.interrupted[policy]
}

// find returns a policy of the configuration.
func (p *Policies) find(name string) (*policy, *conf.SnapshotPolicy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.policies {
		if l.name == name {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l, l.conf, nil
		}
	}
	return nil, nil, fmt.Errorf("policy %s: %w", name, admin.ErrNoPolicy)
}

// RunPolicy implements admin.SnapshotPolicies. The run goes on if ctx ends.
func (p *Policies) RunPolicy(ctx context.Context, name string) (admin.PolicyRun, error) {
	l, c, err := p.find(name)
	if err != nil {
		return admin.PolicyRun{}, err
	}
	release, err := l.begin()
	if err != nil {
		return admin.PolicyRun{}, err
	}
	result := make(chan admin.PolicyRun, 1)
	if !p.start(func() {
		done := p.runHeld(p.ctx, l, c)
		release()
		result <- done
	}) {
		release()
		return admin.PolicyRun{}, admin.ErrChanging
	}
	select {
	case done := <-result:
		return done, nil
	case <-ctx.Done():
		return admin.PolicyRun{}, ctx.Err()
	}
}

// start runs do on a goroutine that Close waits for; false after Close.
func (p *Policies) start(do func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.work.Go(do)
	return true
}

// begin excludes other runs of the policy until release is called.
func (l *policy) begin() (release func(), err error) {
	select {
	case l.busy <- struct{}{}:
		return func() { <-l.busy }, nil
	default:
		return nil, fmt.Errorf("policy %s: %w", l.name, admin.ErrPolicyBusy)
	}
}

// PrunePolicy implements admin.SnapshotPolicies.
func (p *Policies) PrunePolicy(ctx context.Context, name string, dryRun bool) ([]admin.PrunedSnapshot, error) {
	l, c, err := p.find(name)
	if err != nil {
		return nil, err
	}
	release, err := l.begin()
	if err != nil {
		return nil, err
	}
	defer release()
	return p.prune(ctx, c, dryRun)
}
