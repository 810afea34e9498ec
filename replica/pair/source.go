package pair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/backstore"
	"odx/offload"
)

// Serve does what the server of the other side asks for. from is the name by which this
// server knows it.
func (m *Manager) Serve(ctx context.Context, from string, q Request) (Answer, error) {
	if q.Pair == (ID{}) {
		return Answer{}, fmt.Errorf("%w: no pair is named", backstore.ErrInvalid)
	}
	p := m.of(q.Pair)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(q.Pair)
	if errors.Is(err, ErrNoPair) && q.Op == opBegin {
		r, err = m.becomeSource(ctx, from, q)
	}
	if err != nil {
		return Answer{}, err
	}
	if r.PeerStore != q.From {
		return Answer{}, fmt.Errorf("%w: %v is a pair with another store", ErrNoPair, q.Pair)
	}
	if rounds := q.Op == opTake || q.Op == opKeep; r.Move != nil && q.Op != opState && (!rounds || r.Role != Source) {
		return Answer{}, fmt.Errorf("%w: %v is a migration, whose source decides", ErrRole, q.Pair)
	}
	switch q.Op {
	case opBegin, opState:
		return m.answer(r, nil), nil
	case opTake:
		a, err := m.take(ctx, r, q)
		if err == nil {
			err = m.unitsHere(r, q, &a)
		}
		return a, err
	case opKeep:
		return m.answer(r, nil), m.acknowledge(ctx, r, q.Point)
	case opYield:
		return m.yield(ctx, r, q)
	case opLead:
		return m.follow(ctx, r, q)
	case opForget:
		return Answer{}, m.forgotten(ctx, r)
	case opOrphan:
		return Answer{}, m.orphaned(ctx, r)
	}
	return Answer{}, fmt.Errorf("%w: request %.20q", backstore.ErrInvalid, string(q.Op))
}

// answer describes a side, and a point if there is one.
func (m *Manager) answer(r *record, p *point) Answer {
	a := Answer{Role: r.Role, Epoch: r.Epoch, Identity: r.Identity, Object: r.objectName(), Common: r.commonID()}
	if p != nil {
		a.Point, a.Age, a.Final = p.ID, ago(p.Taken), p.Final
	}
	return a
}

// becomeSource makes the record of a new pair. The volume cannot be deleted from then on.
func (m *Manager) becomeSource(ctx context.Context, from string, q Request) (*record, error) {
	v, err := m.lookUp(q.Object)
	if err != nil {
		return nil, err
	}
	name, err := m.freeName(q.Name, from)
	if err != nil {
		return nil, err
	}
	r := &record{ID: q.Pair, Name: name, Role: Source, Epoch: 1, File: v.IsFile(), Object: v.Name(), PeerStore: q.From, PeerName: from, PeerObject: q.Name}
	identity, err := m.identityOf(v)
	if err != nil {
		return nil, err
	}
	r.Identity = identity
	if !r.File {
		r.Volume = v.ID()
	}
	if err := m.reached("source record"); err != nil {
		return nil, err
	}
	if err := m.protect(ctx, v, r); err != nil {
		return nil, err
	}
	m.log.WithField("replica", r.Name).WithField("peer", from).WithField("object", r.objectName()).Info("a peer keeps a replica from now on")
	return r, nil
}

// freeName returns the name of a pair here, which another server has chosen there.
func (m *Manager) freeName(name, from string) (string, error) {
	if !ValidName(name) {
		return "", fmt.Errorf("%w: name of a replica %.70q", backstore.ErrInvalid, name)
	}
	all, err := m.records()
	if err != nil {
		return "", err
	}
	if len(all) >= maxPairs {
		return "", fmt.Errorf("%w: %d replicas", backstore.ErrTooMany, len(all))
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(all, func(r *record) bool { return r.Name == name })
	}
	if !taken(name) {
		return name, nil
	}
	if name += "@" + from; taken(name) {
		return "", fmt.Errorf("%w: there is a replica %s already; forget it first", backstore.ErrExists, name)
	}
	return name, nil
}

// ValidName reports whether a replica can have that name: 1 to 200 characters without control
// characters and slashes.
func ValidName(name string) bool {
	return name != "" && len(name) <= 200 && name[0] != '.' && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' })
}

// take pins the state of the source as it is now, unless the caller has not finished with the
// one before. Known is acknowledged by it.
func (m *Manager) take(ctx context.Context, r *record, q Request) (Answer, error) {
	if r.Role == Replica || r.Epoch != q.Epoch && (r.Role == Former || q.Epoch > r.Epoch) {
		return Answer{}, fmt.Errorf("%w: this side is %s in epoch %d, the caller in %d", ErrRole, r.Role, r.Epoch, q.Epoch)
	}
	switch {
	case q.Known == (ID{}):
	case r.find(q.Known) != nil:
		if err := m.acknowledge(ctx, r, q.Known); err != nil {
			return Answer{}, err
		}
	case !q.Full:
		return Answer{}, fmt.Errorf("%w: point %v is not here", ErrNoCommon, q.Known)
	}
	frozen := r.Role == Former
	if n := r.Next; n != nil && n.ID == q.Resume && (n.Final || !frozen) {
		return m.answer(r, n), nil
	}
	if c := r.Common; c != nil && c.Final && frozen && c.ID == q.Known {
		return m.answer(r, c), nil // nothing was written since
	}
	if old := r.Next; old != nil {
		r.Next = nil
		if err := m.reached("drop the point that was given up"); err != nil {
			return Answer{}, err
		}
		if err := m.drop(ctx, r, old); err != nil {
			return Answer{}, err
		}
	}
	v, err := m.object(r)
	if err != nil {
		return Answer{}, err
	}
	if err := m.reached("take a point"); err != nil {
		return Answer{}, err
	}
	err = m.pin(ctx, v, func(snapshot uint64) *record {
		r.Next = &point{ID: newID(), Snapshot: snapshot, Taken: time.Now().Round(0), Final: frozen}
		return r
	})
	if err != nil {
		return Answer{}, err
	}
	return m.answer(r, r.Next), nil
}

// acknowledge makes a point that the other side has the common one, and lets go of an older
// one.
func (m *Manager) acknowledge(ctx context.Context, r *record, id ID) error {
	if r.Next == nil || r.Next.ID != id {
		return nil // it is the common one, or one that was given up since
	}
	old := r.Common
	r.Common, r.Next = r.Next, nil
	r.Succeeded = time.Now().Round(0)
	if err := m.reached("let go of the older point"); err != nil {
		return err
	}
	return m.drop(ctx, r, old)
}

// yield freezes the source.
func (m *Manager) yield(ctx context.Context, r *record, q Request) (Answer, error) {
	if r.Epoch != q.Epoch || r.Role == Replica {
		return Answer{}, fmt.Errorf("%w: this side is %s in epoch %d, the caller in %d", ErrRole, r.Role, r.Epoch, q.Epoch)
	}
	if r.Role == Source {
		if _, err := m.link(r); err != nil {
			return Answer{}, fmt.Errorf("the source could not follow this side afterwards, since it cannot ask it; make this server a peer there, too: %w", err)
		}
		if err := m.retire(ctx, r, r.Epoch); err != nil {
			return Answer{}, err
		}
		m.log.WithField("replica", r.Name).WithField("peer", r.PeerName).Warn("this side is the source no longer, since the peer takes over")
	}
	a := m.answer(r, nil)
	// It serves no more, so they do not change; and they stay until it follows the other side.
	return a, m.unitsHere(r, q, &a)
}

// retire makes a source a former one.
func (m *Manager) retire(ctx context.Context, r *record, epoch uint64) error {
	v, err := m.object(r)
	if errors.Is(err, backstore.ErrNotFound) && r.File { // it was deleted: nothing is to be frozen
		r.Role, r.Epoch = Former, epoch
		return m.put(ctx, r)
	}
	if err != nil {
		return err
	}
	r.Role, r.Epoch, r.Untold, r.Volume = Former, epoch, false, v.ID()
	if err := m.reached("freeze the source"); err != nil {
		return err
	}
	if err := m.protect(ctx, v, r); err != nil {
		return err
	}
	return m.tellRoles(ctx, r)
}

// follow learns that the other side is the source.
func (m *Manager) follow(ctx context.Context, r *record, q Request) (Answer, error) {
	if q.Epoch < r.Epoch || q.Epoch == r.Epoch && r.Role == Source {
		return m.answer(r, nil), nil // the caller sees what this side is
	}
	common := r.find(q.Point)
	switch {
	case r.Role == Former && common != nil && common.Final:
		// Nothing was written here since, so nothing can be lost.
		return m.rejoin(ctx, r, q.Epoch, common)
	case r.Role == Source:
		if err := m.takenOver(ctx, r, q.Epoch); err != nil {
			return Answer{}, err
		}
	case q.Epoch > r.Epoch:
		r.Epoch = q.Epoch
		if err := m.put(ctx, r); err != nil {
			return Answer{}, err
		}
	}
	return m.answer(r, nil), nil
}

// rejoin makes a former source the replica, from a point that both sides have.
func (m *Manager) rejoin(ctx context.Context, r *record, epoch uint64, common *point) (Answer, error) {
	var other *point
	for _, p := range r.points() {
		if p != common {
			other = p
		}
	}
	if m.o.Arrivals != nil { // the LUN is another disk from here on
		if err := m.o.Arrivals.PowerOff(ctx, r.objectName(), r.Identity); err != nil {
			return Answer{}, err
		}
	}
	r.Role, r.Epoch, r.Common, r.Next, r.Work = Replica, epoch, common, nil, nil
	if err := m.reached("follow the other side"); err != nil {
		return Answer{}, err
	}
	if err := m.drop(ctx, r, other); err != nil {
		return Answer{}, err
	}
	m.log.WithField("replica", r.Name).WithField("peer", r.PeerName).Info("this side is the replica from now on")
	return m.answer(r, nil), m.tellRoles(ctx, r)
}

// forgotten ends the pair, since the other side has given it up. A former source stays what
// it is: the other side has later data.
func (m *Manager) forgotten(ctx context.Context, r *record) error {
	if r.Role != Source {
		return fmt.Errorf("%w: this side is %s, not a source; run `odx replicate forget %s` here if that is meant", ErrRole, r.Role, r.Name)
	}
	return m.endHere(ctx, r)
}

// endHere is end, after which the object is served as the roles that are left say.
func (m *Manager) endHere(ctx context.Context, r *record) error {
	if err := m.end(ctx, r); err != nil {
		return err
	}
	return m.tellRoles(ctx, r)
}

// orphaned notes that the source has given up the pair. What is here stays as it is.
func (m *Manager) orphaned(ctx context.Context, r *record) error {
	if r.Role == Source {
		return fmt.Errorf("%w: this side is the source", ErrRole)
	}
	if r.Orphan {
		return nil
	}
	r.Orphan = true
	if err := m.reached("note that the source has forgotten the pair"); err != nil {
		return err
	}
	if err := m.put(ctx, r); err != nil {
		return err
	}
	m.log.WithField("replica", r.Name).WithField("peer", r.PeerName).Warn("the peer has forgotten this replica, which is not brought up to date any more; `odx replicate forget` makes it a volume of its own")
	return nil
}

// end deletes all that a side has of a pair, the record last. The object stays, and can be
// written to.
func (m *Manager) end(ctx context.Context, r *record) error {
	if err := m.dropPoints(ctx, r); err != nil {
		return err
	}
	if v := m.hidden(r); v != nil {
		if err := m.remove(ctx, v); err != nil {
			return err
		}
	}
	gone, err := m.unitsDeletion(r.ID)
	if err != nil {
		return err
	}
	gone = append(gone, r.deletion())
	if err := m.reached("forget the pair"); err != nil {
		return err
	}
	v, err := m.object(r)
	if errors.Is(err, backstore.ErrNotFound) {
		if err = m.store.PutRecords(ctx, gone...); err == nil {
			err = m.store.Flush(ctx)
		}
		return err
	}
	if err != nil {
		return err
	}
	if err := v.Protect(ctx, r.ID.String(), nil, gone...); err != nil {
		return err
	}
	m.log.WithField("replica", r.Name).Info("replica forgotten")
	return nil
}

// dropPoints lets go of the points of a side.
func (m *Manager) dropPoints(ctx context.Context, r *record) error {
	for _, p := range r.points() {
		if p == r.Next {
			r.Next = nil
		} else {
			r.Common = nil
		}
		if err := m.reached("forget a point"); err != nil {
			return err
		}
		if err := m.drop(ctx, r, p); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot returns a point of a pair, by the name that Point gives it; ok is false if it is
// none of those names. The caller releases it.
func (m *Manager) Snapshot(name string) (n *backstore.Snapshot, ok bool, err error) {
	text, ok := strings.CutPrefix(name, pointPrefix)
	if !ok {
		return nil, false, nil
	}
	first, second, _ := strings.Cut(text, "/")
	var pair, id ID
	if err := errors.Join(pair.UnmarshalText([]byte(first)), id.UnmarshalText([]byte(second))); err != nil {
		return nil, true, fmt.Errorf("%w: %w", backstore.ErrInvalid, err)
	}
	r, err := m.load(pair)
	if err != nil {
		return nil, true, fmt.Errorf("%w: %w", backstore.ErrNotFound, err)
	}
	p := r.find(id)
	if p == nil {
		return nil, true, fmt.Errorf("point %v of %v: %w", id, r, backstore.ErrNotFound)
	}
	n, err = m.store.Snapshot(p.Snapshot)
	return n, true, err
}

// pointPrefix begins the names of points. No volume has such a name.
const pointPrefix = "replica:"

// pointName returns the name of a point at the side that has it; "" for none.
func pointName(pair, point ID) string {
	if point == (ID{}) {
		return ""
	}
	return pointPrefix + pair.String() + "/" + point.String()
}

// isFile reports whether a name of an object is that of a file.
func isFile(object string) (name string, file bool) {
	return strings.CutPrefix(object, offload.FilePrefix)
}
