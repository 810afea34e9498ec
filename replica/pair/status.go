package pair

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "odx/api/v1"
)

// Progress is how far a round is, in bytes.
type Progress struct {
	// Object is how much of the object was compared, of ObjectTotal.
	Object, ObjectTotal int64
	// Found is how much of that differs, Fetched how much of it is here, Crossed how much of
	// it came over the network so far: the rest was here already.
	Found, Fetched, Crossed int64
	// Expected bounds how much differs in the whole object: never less, and as much once that was
	// counted.
	Expected int64
}

// Left is how much is left to fetch, at most, in bytes.
func (p *Progress) Left() int64 { return max(p.Expected-p.Fetched, 0) }

// V1 returns the JSON of the API, and of what peers answer.
func (p *Progress) V1() v1.ReplicaProgress {
	return v1.ReplicaProgress{ComparedBytes: p.Object, ObjectBytes: p.ObjectTotal, DifferBytes: p.Found, FetchedBytes: p.Fetched, NetworkBytes: p.Crossed, LeftBytes: p.Left()}
}

// Attempt is a round.
type Attempt struct {
	Began time.Time
	Took  time.Duration
	Progress
	// Problem is why it failed, "" if it did not.
	Problem string
}

// Counts count since the process began.
type Counts struct {
	Rounds, Failures uint64
	// Fetched and Crossed are as in Progress.
	Fetched, Crossed int64
}

// Status describes a side of a pair.
type Status struct {
	ID     ID
	Name   string
	Role   Role
	Epoch  uint64
	Object string // volume, or file:NAME, of this server
	// Peer names the other server, PeerStore its store, and PeerObject its volume or file; at
	// the source, it is the name of the replica there.
	Peer       string
	PeerStore  [16]byte
	PeerObject string
	Paused     bool
	// Planned: the configuration says when there are rounds.
	Planned bool
	// Moving: the pair is a migration.
	Moving bool
	// Untold: the other side may not know yet that this one is the source.
	Untold bool
	// Point is the state that both sides have; zero: there is none yet. Pinned is how many
	// snapshots this store keeps for it.
	Point  ID
	Pinned int
	// Identity is what initiators see of a LUN on the source.
	Identity [16]byte
	// Succeeded is when the last round ended well, zero for never; Behind how long ago the
	// source had the state that the replica has, 0 if that is not known.
	Succeeded time.Time
	Behind    time.Duration
	// Orphan: the source has given up the pair.
	Orphan bool
	// Running: a round is under way.
	Running bool
	// Now is how far it is, Last the last one that ended in this process.
	Now    Progress
	Last   Attempt
	Counts Counts
}

// List describes all pairs, by name.
func (m *Manager) List(context.Context) ([]Status, error) {
	all, err := m.records()
	if err != nil {
		return nil, err
	}
	list := make([]Status, 0, len(all))
	for _, r := range all {
		list = append(list, m.status(r))
	}
	return list, nil
}

// Status describes a pair; ErrNoPair: there is none of that name.
func (m *Manager) Status(_ context.Context, name string) (Status, error) {
	r, err := m.named(name)
	if err != nil {
		return Status{}, err
	}
	return m.status(r), nil
}

func (m *Manager) status(r *record) Status {
	s := Status{
		ID: r.ID, Name: r.Name, Role: r.Role, Epoch: r.Epoch, Object: r.objectName(), Peer: r.PeerName, PeerStore: r.PeerStore, PeerObject: r.PeerObject,
		Moving: r.Move != nil, Paused: r.Paused, Untold: r.Untold, Point: r.commonID(), Pinned: len(r.points()), Identity: r.Identity, Orphan: r.Orphan, Succeeded: r.Succeeded,
	}
	_, s.Planned, _ = m.plan(r.Name)
	if r.Volume != (ID{}) {
		if v, err := m.store.VolumeByID(r.Volume); err == nil {
			s.Object = objectName(v.IsFile(), v.Name())
		}
	}
	if r.Role == Replica && r.Common != nil {
		s.Behind = ago(r.Common.Taken)
	}
	p := m.of(r.ID)
	s.Running = len(p.busy) > 0
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Now, s.Last, s.Counts = p.progress, p.last, p.counts
	return s
}

// Pause has a replica not be brought up to date, or ends that.
func (m *Manager) Pause(ctx context.Context, name string, paused bool) error {
	r, err := m.ofAdministrator(name, nil)
	if err != nil {
		return err
	}
	if r.Role != Replica {
		return fmt.Errorf("%v: %w: this side is %s, and sends nothing by itself", r, ErrRole, r.Role)
	}
	return m.change(ctx, r.ID, func(r *record) { r.Paused = paused })
}

// Forget ends a pair. What the replica has stays as a volume or file, which can be written
// to. A replica's source has to hear of it, unless only this side is to forget the pair; a
// source notifies the other side if that answers.
func (m *Manager) Forget(ctx context.Context, name string, onlyHere bool) error {
	r, err := m.ofAdministrator(name, func(r *record) bool { return onlyHere && (r.Role == Replica || r.Move.Arrives && r.Move.Served) })
	if err != nil {
		return err
	}
	done, err := m.occupy(r.ID)
	if err != nil {
		return fmt.Errorf("%v: %w", r, err)
	}
	defer done()
	if r.Role == Replica && !r.Orphan && !onlyHere {
		link, err := m.link(r)
		if err == nil {
			_, err = m.ask(ctx, link, r, opForget, nil)
		}
		if err != nil && !errors.Is(err, ErrNoPair) && !errors.Is(err, ErrRole) {
			return fmt.Errorf("%v: the source still keeps a snapshot for it; forget it there too, and here with --local: %w", r, err)
		}
	}
	r, err = m.forget(ctx, r.ID)
	if err == nil && r.Role == Source && !onlyHere {
		m.disown(ctx, r)
	}
	return err
}

// forget ends a pair on this side, and returns what it was.
func (m *Manager) forget(ctx context.Context, id ID) (*record, error) {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return nil, err
	}
	if r.Role == Replica && r.Next != nil {
		return nil, fmt.Errorf("%v: %w: what it has received is being made visible; run a round first", r, ErrBusy)
	}
	return r, m.endHere(ctx, r)
}

// disownTime bounds how long a source that has forgotten a pair waits for the other side.
const disownTime = 3 * time.Second

// disown notifies the replica that its source has forgotten it. One that does not get it learns
// so from its next round.
func (m *Manager) disown(ctx context.Context, r *record) {
	ctx, cancel := context.WithTimeout(ctx, disownTime)
	defer cancel()
	link, err := m.link(r)
	if err == nil {
		_, err = m.ask(ctx, link, r, opOrphan, nil)
	}
	if err != nil && !errors.Is(err, ErrNoPair) {
		m.log.WithField("replica", r.Name).WithField("peer", r.PeerName).WithError(err).Info("the replica does not know yet that its source has forgotten it")
	}
}

// begin notes that a round begins.
func (p *running) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = Progress{}
	p.last.Began = now
}

// end notes that a round has ended.
func (p *running) end(err error) Attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last.Took, p.last.Progress, p.last.Problem = time.Since(p.last.Began), p.progress, ""
	p.counts.Rounds++
	if err != nil {
		p.counts.Failures++
		p.last.Problem = err.Error()
	}
	p.progress = Progress{}
	return p.last
}

// size notes the size of the object before anything of it was compared.
func (p *running) size(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = Progress{ObjectTotal: total, Expected: total}
}

// found notes what differs in the next part of the object, which ends at to.
func (p *running) found(n, to int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.Found += n
	p.progress.Object = to
	p.expect(p.progress.Found + p.progress.ObjectTotal - to)
}

// counted notes a bound of what differs in the whole object.
func (p *running) counted(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expect(n)
}

// expect is counted with p.mu held.
func (p *running) expect(n int64) { p.progress.Expected = min(p.progress.Expected, n) }

// fetched notes that n bytes more are here.
func (p *running) fetched(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.Fetched += n
	p.counts.Fetched += n
}

// crossed notes that n bytes more are asked for.
func (p *running) crossed(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.Crossed += n
	p.counts.Crossed += n
}
