package snapshots

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/admin"
	"odx/audit"
	"odx/backstore"
	"odx/conf"
)

// errInterrupted: the process ended while a run was under way.
var errInterrupted = errors.New("interrupted by the end of the process")

// run is runHeld when no other run of the policy is under way.
func (p *Policies) run(ctx context.Context, l *policy, c *conf.SnapshotPolicy) admin.PolicyRun {
	select {
	case l.busy <- struct{}{}:
		defer func() { <-l.busy }()
		return p.runHeld(ctx, l, c)
	case <-ctx.Done():
		return admin.PolicyRun{Policy: l.name}
	}
}

// runHeld takes the snapshots of a policy, and deletes those that it does not keep.
func (p *Policies) runHeld(ctx context.Context, l *policy, c *conf.SnapshotPolicy) admin.PolicyRun {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return admin.PolicyRun{Policy: l.name, Problem: ctx.Err().Error()}
	}
	p.endInterrupted(c)
	r := &run{policies: p, conf: c, began: p.now()}
	var known bool
	if r.state, known = p.ledger.state(c.Name); !known {
		r.state.Last = r.began
	}
	r.state.Runs = max(r.state.Runs, p.ledger.lastRun(c.Name)) + 1
	r.result = admin.PolicyRun{Policy: c.Name, Run: r.state.Runs, Time: r.began, Taken: []string{}, Deleted: []string{}}
	log := p.o.Log.WithField("policy", c.Name)
	err := r.do(ctx)
	// The end is recorded, also if ctx has ended.
	ended := context.WithoutCancel(ctx)
	if err == nil {
		r.state = state{Runs: r.state.Runs, Last: r.began, Success: r.began}
	} else {
		r.state.Failures++
		r.state.Error, r.result.Problem = err.Error(), err.Error()
		if p.after.Err() == nil {
			r.state.Underway = nil // otherwise the next start ends it
		}
	}
	if stored := p.ledger.setState(ended, c.Name, r.state); stored != nil {
		log.WithError(stored).Warn("that a policy ran is not recorded; after a restart it is made up for")
	}
	switch {
	case err == nil:
		log.WithField("run", r.state.Runs).WithField("snapshots", len(r.result.Taken)).Info("snapshots taken")
		l.mu.Lock()
		l.retry = time.Time{}
		l.mu.Unlock()
	case ctx.Err() == nil:
		again := l.retryAfter(p.now(), r.state.Failures, c)
		log.WithError(err).WithField("run", r.state.Runs).WithField("again", again.UTC().Format(time.RFC3339)).Error("snapshots not taken, or not all")
	}
	if ctx.Err() == nil && !errors.Is(err, errAborted) {
		r.prune(ctx, l)
	}
	return r.result
}

// run is one run of a policy.
type run struct {
	policies *Policies
	conf     *conf.SnapshotPolicy
	began    time.Time
	state    state
	result   admin.PolicyRun
}

// errAborted: a program that is run before or after snapshots failed.
var errAborted = errors.New("aborted")

// do runs the programs and takes the snapshots between them.
func (r *run) do(ctx context.Context) error {
	sources, missing := r.sources()
	if err := r.makeRoom(ctx, len(sources)); err != nil {
		return err
	}
	r.state.Underway = &underway{Run: r.state.Runs, Began: r.began, Before: r.conf.Before != nil}
	if r.conf.Together {
		r.state.Underway.Together = len(sources)
	}
	if err := r.policies.ledger.setState(ctx, r.conf.Name, r.state); err != nil {
		return err
	}
	f := facts{Policy: r.conf.Name, Stage: "before", Time: r.began.UTC().Format(time.RFC3339), Run: r.state.Runs}
	for _, v := range sources {
		f.Volumes = append(f.Volumes, nameOf(v))
	}
	err := r.hook(ctx, r.conf.Before, &f)
	if err == nil {
		err = errors.Join(r.take(ctx, sources, missing), missing)
	}
	f.Stage, f.Snapshots, f.Result = "after", r.result.Taken, "ok"
	if err != nil {
		f.Result, f.Error = "failed", err.Error()
	}
	// It undoes what the one before it did, whatever came between.
	return errors.Join(err, r.hook(r.policies.after, r.conf.After, &f))
}

// hook runs a program; nil is none. The error is errAborted if the run is to end with it.
func (r *run) hook(ctx context.Context, h *conf.Hook, f *facts) error {
	if h == nil {
		return nil
	}
	start := time.Now()
	written, err := runHook(ctx, h, f)
	log := r.policies.o.Log.WithField("policy", r.conf.Name).WithField("command", h.Command[0]).WithField("took", time.Since(start).Round(time.Millisecond).String())
	if written != "" {
		log = log.WithField("output", written)
	}
	switch {
	case err == nil:
		log.Info("hook of a policy of snapshots run")
		return nil
	case h.Continue:
		log.WithError(err).Warn("hook of a policy of snapshots failed; the run goes on")
		return nil
	}
	log.WithError(err).Warn("hook of a policy of snapshots failed")
	return fmt.Errorf("%w: %w", errAborted, err)
}

// nameOf returns the name of a volume, or of a file with admin.FilePrefix.
func nameOf(v *backstore.Volume) string {
	if v.IsFile() {
		return admin.FilePrefix + v.Name()
	}
	return v.Name()
}

// sources returns the volumes and files of the policy by name, and an error for names that
// none has. Prefixes mean none that is read-only, as snapshots are.
func (r *run) sources() (list []*backstore.Volume, missing error) {
	found := map[string]bool{}
	store := r.policies.o.Store.Backstore()
	for _, v := range append(store.Volumes(), store.Files()...) {
		name := nameOf(v)
		if admin.IsHidden(name) {
			continue
		}
		for _, pattern := range r.conf.Volumes {
			prefix, isPrefix := strings.CutSuffix(pattern, "*")
			if name == pattern || isPrefix && !v.ReadOnly() && strings.HasPrefix(name, prefix) && strings.HasPrefix(pattern, admin.FilePrefix) == v.IsFile() {
				found[pattern] = true
				if !slices.Contains(list, v) {
					list = append(list, v)
				}
			}
		}
	}
	var errs []error
	for _, pattern := range r.conf.Volumes {
		if !found[pattern] && !strings.HasSuffix(pattern, "*") {
			errs = append(errs, fmt.Errorf("%s: %w", pattern, backstore.ErrNotFound))
		}
	}
	slices.SortFunc(list, func(a, b *backstore.Volume) int { return cmp.Compare(nameOf(a), nameOf(b)) })
	return list, errors.Join(errs...)
}

// makeRoom returns an error if n more snapshots would be too many, also after those are
// deleted that the policy does not keep.
func (r *run) makeRoom(ctx context.Context, n int) error {
	for tried := false; ; tried = true {
		own, all := r.policies.ledger.count(r.conf.Name)
		r.policies.mu.Lock()
		limit := r.policies.limit
		r.policies.mu.Unlock()
		var err error
		switch {
		case own+n > r.conf.MaxSnapshots:
			err = fmt.Errorf("the policy has %d snapshots, is to take %d more, and max_snapshots is %d; have it keep fewer, or raise that", own, n, r.conf.MaxSnapshots)
		case limit > 0 && all+n > limit:
			err = fmt.Errorf("there are %d snapshots of policies, %d more are to be taken, and limits.snapshots is %d; have policies keep fewer, or raise that", all, n, limit)
		}
		if err == nil || tried {
			return err
		}
		pruned, failed := r.policies.prune(ctx, r.conf, false)
		r.result.Deleted = append(r.result.Deleted, deleted(pruned)...)
		if failed != nil {
			return errors.Join(err, failed)
		}
	}
}

// take takes the snapshots: all at one point, or one after the other.
func (r *run) take(ctx context.Context, sources []*backstore.Volume, missing error) error {
	if r.conf.Together {
		if missing != nil || len(sources) == 0 {
			return nil // of a group without a member there is none
		}
		return r.takeGroup(ctx, sources)
	}
	var errs []error
	for _, v := range sources {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := r.takeGroup(ctx, []*backstore.Volume{v}); err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", v, err))
		}
	}
	return errors.Join(errs...)
}

// maxTries bounds the names that are tried for a snapshot, because others have the first ones.
const maxTries = 999

// takeGroup takes snapshots at one point. Names that another caller takes in the meantime are not used.
func (r *run) takeGroup(ctx context.Context, sources []*backstore.Volume) error {
	for first := 1; ; first++ {
		all, err := r.requests(sources, first)
		if err != nil {
			return err
		}
		err = r.policies.ledger.take(ctx, all)
		if errors.Is(err, backstore.ErrExists) && first < maxTries {
			continue
		}
		if err == nil {
			for i := range all {
				r.result.Taken = append(r.result.Taken, nameOfSnapshot(all[i].of, all[i].name))
			}
		}
		return err
	}
}

// nameOfSnapshot returns the name of a snapshot as nameOf does.
func nameOfSnapshot(of *backstore.Volume, name string) string {
	if of.IsFile() {
		return admin.FilePrefix + name
	}
	return name
}

// requests names the snapshots; first is the first try.
func (r *run) requests(sources []*backstore.Volume, first int) ([]request, error) {
	var all []request
	used := map[string]bool{}
	store := r.policies.o.Store.Backstore()
	for _, v := range sources {
		q := request{of: v, taken: taken{Policy: r.conf.Name, Of: v.ID(), Time: r.began, Run: r.state.Runs}}
		rand.Read(q.taken.ID[:])
		of := conf.SnapshotOf{Volume: nameOf(v), Policy: r.conf.Name, Run: r.state.Runs, At: r.began.In(r.conf.Schedule.Location())}
		for of.Try = first; q.name == ""; of.Try++ {
			if of.Try > maxTries {
				return nil, fmt.Errorf("%d names like %s are those of others", maxTries, r.conf.Names.Name(of))
			}
			name := r.conf.Names.Name(of)
			_, err := store.Volume(name)
			if v.IsFile() {
				_, err = store.File(name)
			}
			if key := nameOfSnapshot(v, name); errors.Is(err, backstore.ErrNotFound) && !used[key] {
				q.name, used[key] = name, true
			}
		}
		all = append(all, q)
	}
	return all, nil
}

// prune deletes what the policy does not keep, after its snapshots were taken.
func (r *run) prune(ctx context.Context, l *policy) {
	c := l.configurationNow()
	if c == nil {
		return // it has left the configuration in the meantime
	}
	pruned, err := r.policies.prune(ctx, c, false)
	r.result.Deleted = append(r.result.Deleted, deleted(pruned)...)
	if err != nil && ctx.Err() == nil {
		r.policies.o.Log.WithError(err).WithField("policy", c.Name).Warn("snapshots that a policy does not keep: not all deleted")
	}
}

// configurationNow returns the configuration of the policy; nil if it has left.
func (l *policy) configurationNow() *conf.SnapshotPolicy {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conf
}

// recordRun records a run that no administrator asked for.
func (p *Policies) recordRun(done *admin.PolicyRun) {
	if p.o.Record == nil || len(done.Taken)+len(done.Deleted) == 0 && done.Problem == "" {
		return
	}
	c := audit.Change{What: "snapshot run", Subject: "policy " + done.Policy, After: map[string][]string{"taken": done.Taken, "deleted": done.Deleted}}
	if done.Problem != "" {
		c.Err = errors.New(done.Problem)
	}
	p.o.Record(p.ctx, c)
}

// endInterrupted ends a run that the end of the process interrupted: what ran before the
// snapshots is undone by what runs after them. No other run of the policy is under way.
func (p *Policies) endInterrupted(c *conf.SnapshotPolicy) {
	if !p.isInterrupted(c.Name) {
		return
	}
	s, _ := p.ledger.state(c.Name)
	u := s.Underway
	r := &run{policies: p, conf: c, began: u.Began, state: s}
	if u.Before && c.After != nil {
		f := facts{Policy: c.Name, Stage: "after", Time: u.Began.UTC().Format(time.RFC3339), Run: u.Run, Result: "interrupted", Error: errInterrupted.Error()}
		for _, v := range p.madeBy(c.Name, u.Run) {
			f.Snapshots = append(f.Snapshots, nameOf(v))
		}
		if err := r.hook(p.after, c.After, &f); err != nil {
			p.o.Log.WithError(err).WithField("policy", c.Name).Error("what an interrupted run began is not undone")
		}
	}
	if p.after.Err() != nil {
		return // the next start does it
	}
	p.noteInterrupted(context.WithoutCancel(p.ctx), c.Name, s)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.interrupted, c.Name)
}

// noteInterrupted records the end of a run that was interrupted.
func (p *Policies) noteInterrupted(ctx context.Context, policy string, s state) {
	s.Underway = nil
	s.Failures++
	s.Error = errInterrupted.Error()
	if err := p.ledger.setState(ctx, policy, s); err != nil {
		p.o.Log.WithError(err).WithField("policy", policy).Warn("end of an interrupted run not recorded")
	}
}

// endOthers ends the runs that the end of the process before interrupted, but for those whose
// policy has a program that undoes something: follow ends them.
func (p *Policies) endOthers(ctx context.Context) {
	for _, name := range p.ledger.policies() {
		s, _ := p.ledger.state(name)
		if s.Underway == nil {
			continue
		}
		if err := p.dropPart(ctx, name); err != nil {
			p.o.Log.WithError(err).WithField("policy", name).Warn("a part of a group of snapshots: not deleted")
		}
		if s.Underway.Before {
			p.interrupted[name] = true
			continue
		}
		p.noteInterrupted(ctx, name, s)
	}
}

// madeBy returns the snapshots of a run that exist.
func (p *Policies) madeBy(policy string, number uint64) (list []*backstore.Volume) {
	objects := p.ledger.objects()
	for _, t := range p.ledger.of(policy) {
		if v := objects[t.ID]; v != nil && t.Run == number {
			list = append(list, v)
		}
	}
	return list
}

// dropPart deletes the snapshots of an interrupted run that were to be at one point in time,
// and are not all there.
func (p *Policies) dropPart(ctx context.Context, name string) error {
	s, _ := p.ledger.state(name)
	if s.Underway.Together == 0 {
		return nil
	}
	made := p.madeBy(name, s.Underway.Run)
	if len(made) == s.Underway.Together {
		return nil
	}
	var errs []error
	for _, v := range made {
		p.o.Log.WithField("policy", name).WithField("volume", nameOf(v)).Info("snapshot of an incomplete group deleted")
		errs = append(errs, p.o.Store.DeleteByID(ctx, v.ID()))
	}
	return errors.Join(append(errs, p.sweep(ctx))...)
}
