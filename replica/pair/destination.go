package pair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"odx/backstore"
	"odx/blockdev"
	"odx/peer"
)

// StartRequest says what is to become a replica of what.
type StartRequest struct {
	Peer   string // name of the peer in the configuration
	Source string // volume, or file:NAME, of the peer
	Name   string // of the replica
	// To is the name of the volume or file here; empty: Name.
	To string
	// Entry names the entry of the configuration that has selected Source; empty: it was named.
	Entry string
}

// Start makes the record of a new replica, which the first round makes the content of.
func (m *Manager) Start(ctx context.Context, q StartRequest) error {
	link, ok := m.o.Named(q.Peer)
	if !ok {
		return fmt.Errorf("peer %s: %w: the configuration names no such peer", q.Peer, backstore.ErrNotFound)
	}
	if !ValidName(q.Name) {
		return fmt.Errorf("%w: name of a replica %.70q; use up to 200 characters without slashes", backstore.ErrInvalid, q.Name)
	}
	if name, err := m.freeName(q.Name, q.Peer); err != nil || name != q.Name {
		return errors.Join(err, fmt.Errorf("replica %s: %w", q.Name, backstore.ErrExists))
	}
	_, file := isFile(q.Source)
	to := q.To
	if to == "" {
		to = q.Name
	}
	if name, wasFile := isFile(to); wasFile != file && wasFile {
		return fmt.Errorf("%w: %s is to be a replica of a volume", backstore.ErrInvalid, to)
	} else {
		to = name
	}
	if _, err := m.lookUp(objectName(file, to)); err == nil {
		return fmt.Errorf("%s: %w; choose another name, or delete it", objectName(file, to), backstore.ErrExists)
	}
	r := &record{
		ID: newID(), Name: q.Name, Role: Replica, Epoch: 1, File: file, Object: to,
		PeerStore: link.Store(), PeerName: q.Peer, PeerObject: q.Source, Entry: q.Entry,
	}
	if err := m.reached("replica record"); err != nil {
		return err
	}
	if err := m.put(ctx, r); err != nil {
		return err
	}
	if _, err := m.ask(ctx, link, r, opBegin, nil); err != nil {
		if refused := (*RefusedError)(nil); errors.As(err, &refused) {
			return errors.Join(err, m.endHere(ctx, r)) // the source will not have it
		}
		return err
	}
	m.log.WithField("replica", r.Name).WithField("peer", q.Peer).WithField("source", q.Source).Info("replica started")
	return nil
}

// errNoPeer: the other side of a pair is not, or no more, in the configuration.
var errNoPeer = fmt.Errorf("%w: the configuration names no peer with it", backstore.ErrNotFound)

// link returns the way to the other side of a pair.
func (m *Manager) link(r *record) (Link, error) {
	link, ok := m.o.Resolve(r.PeerStore)
	if !ok {
		return nil, fmt.Errorf("store %v of peer %s: %w", r.PeerStore, r.PeerName, errNoPeer)
	}
	return link, nil
}

// ask sends a request about a pair to its other side.
func (m *Manager) ask(ctx context.Context, link Link, r *record, op Op, add func(*Request)) (Answer, error) {
	q := Request{Op: op, Pair: r.ID, From: m.store.ID(), Name: r.Name, Object: r.PeerObject, Epoch: r.Epoch}
	if add != nil {
		add(&q)
	}
	if err := m.reached("ask " + string(op)); err != nil {
		return Answer{}, err
	}
	a, err := link.Ask(ctx, q)
	if err == nil {
		err = m.reached("answered " + string(op))
	}
	return a, err
}

// RoundOptions are the choices of a round. The zero value is valid.
type RoundOptions struct {
	// Full: the replica becomes equal to the source although they have no common point. What
	// it has had from the source does not cross again.
	Full bool
	// Limit, if set, is the rate in bytes per second at which data crosses.
	Limit *rate.Limiter
	// Keep is how many snapshots of the replica are kept, the last ones.
	Keep int
	// Hash: what has never come from the source is looked for here by fingerprints, which the
	// source computes with the key of this store.
	Hash bool
	// Reservations: a failover takes along what the logical unit of the source keeps, reservations
	// and mode parameters: those that it has when its service ends, or, by force, those that a
	// round has brought last.
	Reservations bool
	// EvenPaused: by hand, a paused replica is brought up to date too.
	EvenPaused bool
}

// Round brings a replica up to date, once.
func (m *Manager) Round(ctx context.Context, name string, o RoundOptions) (Attempt, error) {
	r, err := m.ofAdministrator(name, nil)
	if err != nil {
		return Attempt{}, err
	}
	return m.attempt(ctx, r, o)
}

// attempt is Round of a pair, or of a migration.
func (m *Manager) attempt(ctx context.Context, r *record, o RoundOptions) (Attempt, error) {
	done, err := m.occupy(r.ID)
	if err != nil {
		return Attempt{}, fmt.Errorf("%v: %w", r, err)
	}
	defer done()
	p := m.of(r.ID)
	at := Attempt{Began: time.Now()}
	p.begin(at.Began)
	err = m.round(ctx, r.ID, o)
	at = p.end(err)
	if err != nil {
		return at, fmt.Errorf("%v: %w", r, err)
	}
	return at, nil
}

// round is Round of an idle pair. A point that an earlier round has not finished is older
// than the round, so another one follows.
func (m *Manager) round(ctx context.Context, id ID, o RoundOptions) error {
	r, err := m.reveal(ctx, id)
	if err != nil {
		return err
	}
	begun := r.Work
	if err := m.roundOnce(ctx, r, o); err != nil || begun == nil {
		return err
	}
	if r, err = m.load(id); err != nil || r.commonID() != begun.Point {
		return err
	}
	return m.roundOnce(ctx, r, o)
}

// roundOnce receives one point.
func (m *Manager) roundOnce(ctx context.Context, r *record, o RoundOptions) error {
	if r.Role != Replica {
		return fmt.Errorf("%w: this side is %s", ErrRole, r.Role)
	}
	if r.Paused && !o.EvenPaused {
		return ErrPaused
	}
	link, err := m.link(r)
	if err != nil {
		return err
	}
	a, err := m.taken(ctx, link, r, o)
	if err != nil {
		return err
	}
	if a.Point != r.commonID() {
		if err := m.receive(ctx, link, r.ID, a, o); err != nil {
			return err
		}
	} else if err := m.succeeded(ctx, r.ID, a); err != nil {
		return err
	}
	// A source that does not hear of it hears of it with the next round.
	if _, err := m.ask(ctx, link, r, opKeep, func(q *Request) { q.Point = a.Point }); err != nil {
		if refused := (*RefusedError)(nil); errors.As(err, &refused) || errors.Is(err, peer.ErrDown) {
			m.log.WithField("replica", r.Name).WithError(err).Debug("source does not know yet that a point has arrived")
			return nil
		}
		return err
	}
	return nil
}

// taken has the source pin a point.
func (m *Manager) taken(ctx context.Context, link Link, r *record, o RoundOptions) (Answer, error) {
	if r.Identity == (ID{}) {
		a, err := m.ask(ctx, link, r, opBegin, nil)
		if err != nil {
			return a, err
		}
		err = m.change(ctx, r.ID, func(r *record) { r.Identity = a.Identity })
		if err != nil {
			return a, err
		}
	}
	a, err := m.ask(ctx, link, r, opTake, func(q *Request) {
		q.Known, q.Full, q.Units = r.commonID(), o.Full, r.Move == nil
		if r.Work != nil {
			q.Resume = r.Work.Point
		}
	})
	if errors.Is(err, ErrNoPair) {
		if noted := m.change(ctx, r.ID, func(r *record) { r.Orphan = true }); noted != nil {
			return a, errors.Join(err, noted)
		}
		return a, fmt.Errorf("the source has forgotten this replica; forget it here too, and start another one: %w", err)
	}
	if errors.Is(err, ErrNoCommon) {
		return a, fmt.Errorf("`odx replicate run %s --full` makes it equal to the source all the same, and transfers only what it never had: %w", r.Name, err)
	}
	if err != nil {
		return a, err
	}
	if r.Move == nil {
		err = m.noteUnits(ctx, r.ID, a.Units)
	}
	if err == nil && (a.Epoch != r.Epoch || r.Orphan) {
		err = m.change(ctx, r.ID, func(r *record) { r.Epoch, r.Orphan = max(r.Epoch, a.Epoch), false })
	}
	return a, err
}

// change changes the record of a pair.
func (m *Manager) change(ctx context.Context, id ID, set func(r *record)) error {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return err
	}
	set(r)
	if err := m.reached("change the record"); err != nil {
		return err
	}
	return m.put(ctx, r)
}

// succeeded notes that the replica is as the source is.
func (m *Manager) succeeded(ctx context.Context, id ID, a Answer) error {
	return m.change(ctx, id, func(r *record) {
		now := time.Now().Round(0)
		r.Succeeded, r.Common.Taken = now, now.Add(-a.Age)
		if a.Final {
			r.Common.Taken = now
		}
	})
}

// receive makes the replica equal to a point of the source.
func (m *Manager) receive(ctx context.Context, link Link, id ID, a Answer, o RoundOptions) error {
	taken := time.Now().Add(-a.Age).Round(0)
	r, err := m.load(id)
	if err != nil {
		return err
	}
	base := r.commonID()
	if o.Full {
		base = ID{}
	}
	h, err := link.Hold(ctx, id, a.Point, base)
	if err != nil {
		return err
	}
	// A hold that the other side does not hear of ends with its lease.
	defer func() { _ = h.Release(context.WithoutCancel(ctx)) }()
	v, err := m.prepare(ctx, id, work{Point: a.Point, Base: base}, h.Length())
	if err == nil {
		err = m.fill(ctx, id, h, v, o)
	}
	if err == nil {
		err = m.store.Flush(ctx)
	}
	if errors.Is(err, backstore.ErrNoSpace) {
		// What could not be received takes no space until there is more.
		return errors.Join(fmt.Errorf("no space for the next state of the replica, which stays as it is; make room, or make store.capacity larger: %w", err), m.giveUp(context.WithoutCancel(ctx), id))
	}
	if err != nil {
		return err
	}
	if err := m.complete(ctx, id, v, point{ID: a.Point, Taken: taken, Final: a.Final}); err != nil {
		return err
	}
	if _, err := m.reveal(ctx, id); err != nil {
		return err
	}
	return m.keepSnapshots(ctx, id, taken, o.Keep)
}

// prepare returns the hidden object that is made equal to a point: the one that an earlier
// round has left, or one that equals the base.
func (m *Manager) prepare(ctx context.Context, id ID, w work, size int64) (*backstore.Volume, error) {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return nil, err
	}
	old := m.hidden(r)
	if old != nil && r.Work.Point == w.Point && r.Work.Base == w.Base && r.Work.Begun {
		return old, nil
	}
	w.Name = hiddenPrefix + newID().String()
	r.Work = &w
	if err := m.reached("name the hidden object"); err != nil {
		return nil, err
	}
	if err := m.put(ctx, r); err != nil {
		return nil, err
	}
	if old != nil {
		if err := m.remove(ctx, old); err != nil {
			return nil, err
		}
	}
	v, err := m.makeHidden(ctx, r, size)
	if err == nil && w.Base != (ID{}) {
		err = m.mapBase(ctx, r, v)
	}
	if err != nil {
		return nil, err
	}
	r.Work.Begun = true
	if err := m.reached("the hidden object is as the base"); err != nil {
		return nil, err
	}
	return v, m.put(ctx, r)
}

// mapBase makes the hidden object equal to the common point.
func (m *Manager) mapBase(ctx context.Context, r *record, v *backstore.Volume) error {
	n, err := m.store.Snapshot(r.Common.Snapshot)
	if err != nil {
		return err
	}
	defer n.Release()
	_, err = v.Map(ctx, 0, n, 0, min(v.Size(), n.Length()))
	return err
}

// makeHidden creates the hidden object of a record.
func (m *Manager) makeHidden(ctx context.Context, r *record, size int64) (*backstore.Volume, error) {
	if err := m.reached("make the hidden object"); err != nil {
		return nil, err
	}
	if !r.File {
		return m.store.CreateVolume(ctx, r.Work.Name, size)
	}
	v, err := m.store.CreateFile(ctx, r.Work.Name)
	if err != nil {
		return nil, err
	}
	return v, v.Truncate(ctx, size)
}

// giveUp removes what a round has received.
func (m *Manager) giveUp(ctx context.Context, id ID) error {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil || r.Work == nil || r.Next != nil {
		return err
	}
	v := m.hidden(r)
	r.Work = nil
	if err := m.put(ctx, r); err != nil {
		return err
	}
	if v == nil {
		return nil
	}
	return m.remove(ctx, v)
}

const (
	// diffWindow is the part of the object, in bytes, whose differences are asked for at once, which
	// bounds how many there are. countWindow is the part whose differences are only counted.
	diffWindow  = 4 << 30
	countWindow = 64 << 30
)

// count counts what differs, ahead of fill, so that it is known how much is left. An error is one
// that fill meets, too.
func (m *Manager) count(ctx context.Context, p *running, h peer.Hold) {
	differ := int64(0)
	for off := int64(0); off < h.Length(); off += countWindow {
		length := min(countWindow, h.Length()-off)
		if err := h.Diff(ctx, off, length, func(d backstore.Difference) error {
			if !d.Hole {
				differ += d.Length
			}
			return nil
		}); err != nil {
			return
		}
		p.counted(differ + h.Length() - off - length)
	}
}

// fill makes v equal to what is held, where the two may differ.
func (m *Manager) fill(ctx context.Context, id ID, h peer.Hold, v *backstore.Volume, o RoundOptions) error {
	p := m.of(id)
	options := peer.FetchOptions{Moved: p.fetched, Hash: o.Hash, Pace: func(ctx context.Context, n int64) error {
		p.crossed(n)
		if o.Limit == nil {
			return nil
		}
		return wait(ctx, o.Limit, n)
	}}
	p.size(h.Length())
	if h.Length() > diffWindow {
		counting, stop := context.WithCancel(ctx)
		var counter sync.WaitGroup
		counter.Go(func() { m.count(counting, p, h) })
		defer counter.Wait()
		defer stop()
	}
	for off := int64(0); off < h.Length(); off += diffWindow {
		var ranges []blockdev.Range
		length := min(diffWindow, h.Length()-off)
		err := h.Diff(ctx, off, length, func(d backstore.Difference) error {
			if d.Hole {
				return v.Unmap(ctx, d.Offset, d.Length)
			}
			ranges = append(ranges, d.Range)
			return nil
		})
		if err != nil {
			return err
		}
		total := int64(0)
		for _, r := range ranges {
			total += r.Length
		}
		p.found(total, off+length)
		if err := m.reached("fetch"); err != nil {
			return err
		}
		if err := fetchAll(ctx, h, v, ranges, options); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until n bytes more may cross.
func wait(ctx context.Context, l *rate.Limiter, n int64) error {
	for n > 0 {
		part := min(n, int64(l.Burst()))
		if err := l.WaitN(ctx, int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}
