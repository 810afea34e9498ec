package pair

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"odx/admin"
	"odx/backstore"
	"odx/peer"
)

// Failover makes a replica the source. Without force the source is asked to end its service
// first, and what was written to it before that is fetched: nothing is lost. With force it
// is not asked: what was written since the last round is not here. The result is what was taken
// along of what the logical unit of the source keeps, nil without o.Reservations.
func (m *Manager) Failover(ctx context.Context, name string, force bool, o RoundOptions) (*Adopted, error) {
	r, err := m.ofAdministrator(name, func(r *record) bool { return force && r.Role == Former && !r.Move.Served })
	if err != nil {
		return nil, err
	}
	done, err := m.occupy(r.ID)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", r, err)
	}
	defer done()
	if r.Role == Source {
		return nil, fmt.Errorf("%v: %w: this side is the source", r, ErrRole)
	}
	if r.Role == Former { // which has kept them
		return nil, m.resume(ctx, r, force)
	}
	var adopted *Adopted
	if force && o.Reservations {
		adopted, err = m.adoptKnown(ctx, r)
	} else if !force {
		var units []UnitRecord
		if units, err = m.takeLast(ctx, r, o); err == nil && o.Reservations {
			adopted, err = m.adopt(ctx, r.ID, units)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", r, err)
	}
	return adopted, m.promote(ctx, r.ID)
}

// takeLast freezes the source and fetches what it has then, and returns what its logical unit
// keeps if that is to be taken along.
func (m *Manager) takeLast(ctx context.Context, r *record, o RoundOptions) ([]UnitRecord, error) {
	link, err := m.link(r)
	if err != nil {
		return nil, err
	}
	// Most of it crosses while the source is still served.
	o.EvenPaused = true
	if err := m.round(ctx, r.ID, o); err != nil {
		return nil, unreachable(err)
	}
	if r, err = m.load(r.ID); err != nil {
		return nil, err
	}
	a, err := m.ask(ctx, link, r, opYield, func(q *Request) { q.Units = o.Reservations })
	if err != nil {
		return nil, unreachable(err)
	}
	if err := m.round(ctx, r.ID, o); err != nil {
		return nil, fmt.Errorf("the source is frozen, and this side is still the replica; repeat it, or run `odx replicate failover` at the source to go back: %w", err)
	}
	return a.Units, nil
}

// unreachable says what can be done without the source.
func unreachable(err error) error {
	if errors.Is(err, peer.ErrDown) {
		return fmt.Errorf("the source cannot be asked to end its service; if it is down for certain, --force takes over what the last round has brought: %w", err)
	}
	return err
}

// promote makes a replica the source.
func (m *Manager) promote(ctx context.Context, id ID) error {
	r, err := m.reveal(ctx, id) // what is complete counts
	if err != nil {
		return err
	}
	if r.Common == nil {
		return fmt.Errorf("%v: %w: no round has completed yet", r, ErrRole)
	}
	if err := m.giveUp(ctx, id); err != nil {
		return err
	}
	if err := m.lead(ctx, id); err != nil {
		return err
	}
	m.log.WithField("replica", r.Name).Warn("this side is the source from now on")
	if err := m.tellRoles(ctx, r); err != nil {
		return fmt.Errorf("%v is the source, and its LUN could not be changed; reload: %w", r, err)
	}
	// A former source that is down hears of it later.
	if err := m.tell(ctx, id); err != nil {
		m.log.WithField("replica", r.Name).WithError(err).Warn("the former source does not know yet that it is one; it is notified once it answers")
	}
	return nil
}

// lead makes this side the source, in one step.
func (m *Manager) lead(ctx context.Context, id ID) error {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return err
	}
	v, err := m.object(r)
	if err != nil {
		return err
	}
	past, err := m.unitsDeletion(id) // a later failover has to ask again
	if err != nil {
		return err
	}
	r.Role, r.Epoch, r.Untold, r.Paused = Source, r.Epoch+1, true, false
	if err := m.reached("become the source"); err != nil {
		return err
	}
	return m.protect(ctx, v, r, past...)
}

// tell tells the other side that this one is the source. It is done when the other side has
// answered.
func (m *Manager) tell(ctx context.Context, id ID) error {
	r, err := m.load(id)
	if err != nil || r.Role != Source || !r.Untold {
		return err
	}
	link, err := m.link(r)
	if err != nil {
		return err
	}
	a, err := m.ask(ctx, link, r, opLead, func(q *Request) { q.Point = r.commonID() })
	if errors.Is(err, ErrNoPair) {
		return m.told(ctx, id, r.Epoch)
	}
	if err != nil {
		return err
	}
	if a.Role == Source && a.Epoch == r.Epoch {
		return fmt.Errorf("%v: %w: both sides were made the source; run `odx replicate failback %s` at the one whose changes are to be given up", r, ErrRole, r.Name)
	}
	if a.Role == Source { // a later source: this side follows
		p := m.of(id)
		p.changing.Lock()
		defer p.changing.Unlock()
		if r, err = m.load(id); err == nil && r.Role == Source && r.Epoch < a.Epoch {
			err = m.takenOver(ctx, r, a.Epoch)
		}
		return err
	}
	return m.told(ctx, id, r.Epoch)
}

// Inquire has the sources ask whether the other side has taken over in the meantime, and waits for
// answers until ctx ends. What has been taken over is not to be served.
func (m *Manager) Inquire(ctx context.Context) {
	all, err := m.records()
	if err != nil {
		return // the caller reads them, too, before it serves
	}
	var asking sync.WaitGroup
	for _, r := range all {
		if r.Role != Source {
			continue
		}
		asking.Go(func() {
			if err := m.inquire(ctx, r); err != nil {
				m.log.WithField("replica", r.Name).WithField("peer", r.PeerName).WithError(err).Info("whether the peer has taken over is not known")
			}
		})
	}
	asking.Wait()
}

func (m *Manager) inquire(ctx context.Context, r *record) error {
	link, err := m.link(r)
	if err != nil {
		return err
	}
	a, err := m.ask(ctx, link, r, opState, nil)
	if err != nil || a.Role != Source {
		return err
	}
	p := m.of(r.ID)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err = m.load(r.ID)
	if err != nil || r.Role != Source || r.Epoch >= a.Epoch {
		return err
	}
	return m.takenOver(context.WithoutCancel(ctx), r, a.Epoch)
}

// takenOver makes a source a former one, since the other side has become the source.
func (m *Manager) takenOver(ctx context.Context, r *record, epoch uint64) error {
	if err := m.retire(ctx, r, epoch); err != nil {
		return err
	}
	m.log.WithField("replica", r.Name).WithField("peer", r.PeerName).Error("the peer has taken over: this side is frozen, and not served; `odx replicate failback` makes it follow the peer")
	return nil
}

// told notes that the other side knows of an epoch.
func (m *Manager) told(ctx context.Context, id ID, epoch uint64) error {
	return m.change(ctx, id, func(r *record) { r.Untold = r.Untold && r.Epoch != epoch })
}

// resume makes a former source the source again, where the other side has not become it.
func (m *Manager) resume(ctx context.Context, r *record, force bool) error {
	link, err := m.link(r)
	if err != nil {
		return err
	}
	a, err := m.ask(ctx, link, r, opState, nil)
	switch {
	case err != nil && !force:
		return fmt.Errorf("%v: whether the other side has taken over is not known; if it has not, --force makes this side the source again: %w", r, err)
	case err == nil && a.Role == Source:
		return fmt.Errorf("%v: %w: the other side is the source, and has later data; `odx replicate failback %s` fetches it", r, ErrRole, r.Name)
	}
	if err := m.lead(ctx, r.ID); err != nil {
		return err
	}
	if err := m.tellRoles(ctx, r); err != nil {
		return err
	}
	if err := m.tell(ctx, r.ID); err != nil {
		m.log.WithField("replica", r.Name).WithError(err).Warn("the other side does not know yet that this one is the source again")
	}
	return nil
}

// FailbackOptions are the choices of Failback.
type FailbackOptions struct {
	// Stay: the former source becomes the replica, and nothing more.
	Stay bool
	// Full: also without a common point.
	Full bool
	RoundOptions
}

// Failback makes a former source the replica of the side that has taken over, brings it up
// to date with what has changed since, and makes it the source again, with a result like that
// of Failover. What was written to it after the common point stays as a snapshot.
func (m *Manager) Failback(ctx context.Context, name string, o FailbackOptions) (*Adopted, error) {
	r, err := m.ofAdministrator(name, nil)
	if err != nil {
		return nil, err
	}
	if err := m.becomeReplica(ctx, r, o.Full); err != nil {
		return nil, fmt.Errorf("%v: %w", r, err)
	}
	round := o.RoundOptions
	round.Full, round.EvenPaused = o.Full, true
	if _, err := m.Round(ctx, r.ID.String(), round); err != nil || o.Stay {
		return nil, err
	}
	round.Full = false
	return m.Failover(ctx, r.ID.String(), false, round)
}

// becomeReplica makes a side the replica of the other one, which has taken over.
func (m *Manager) becomeReplica(ctx context.Context, r *record, full bool) error {
	done, err := m.occupy(r.ID)
	if err != nil {
		return err
	}
	defer done()
	if r.Role == Replica {
		return nil // by a failback that did not end, or by a planned failover
	}
	link, err := m.link(r)
	if err != nil {
		return err
	}
	a, err := m.ask(ctx, link, r, opState, nil)
	if err != nil {
		return err
	}
	if a.Role != Source || a.Epoch < r.Epoch {
		return fmt.Errorf("%w: the other side is %s in epoch %d, this one %s in %d; nothing has taken over from this side", ErrRole, a.Role, a.Epoch, r.Role, r.Epoch)
	}
	common := r.find(a.Common)
	if common == nil && !full {
		return fmt.Errorf("%w; --full fetches all that this store never had from the other side", ErrNoCommon)
	}
	p := m.of(r.ID)
	p.changing.Lock()
	defer p.changing.Unlock()
	if r.Role == Source {
		if err := m.retire(ctx, r, a.Epoch); err != nil {
			return err
		}
	}
	if err := m.keepDiverged(ctx, r); err != nil {
		return err
	}
	if common == nil {
		common = r.Common // whatever it is: the first round is a full one
	}
	r.PeerObject = a.Object
	_, err = m.rejoin(ctx, r, a.Epoch, common)
	return err
}

// keepDiverged keeps what a former source has as a snapshot, or as another file.
func (m *Manager) keepDiverged(ctx context.Context, r *record) error {
	v, err := m.object(r)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s-before-failback-%d", v.Name(), r.Epoch)
	if err := m.reached("keep what the former source has"); err != nil {
		return err
	}
	if r.File {
		_, err = m.store.CloneFile(ctx, v, name)
	} else {
		_, err = m.store.SnapshotVolume(ctx, v.Name(), name)
	}
	if errors.Is(err, backstore.ErrExists) {
		return nil // by one that did not end
	}
	if err == nil {
		m.log.WithField("replica", r.Name).WithField("snapshot", name).Info("what the former source had is kept")
	}
	return err
}

// Serving says how a volume or file is to be served as a LUN.
type Serving struct {
	// Out is why it is not served; nil if it is.
	Out error
	// ReadOnly: it is a replica.
	ReadOnly bool
	// Yields: it is a former source. What its logical unit keeps stays as it was at the end of its
	// service: the other side may ask for that, or the role comes back.
	Yields bool
	// Away: it is moved to another server, or about to be: initiators find no access here.
	Away bool
	// Identity is what initiators see, unless it is zero: then its own.
	Identity [16]byte
}

// Serving returns how a volume, or file:NAME, is to be served.
func (m *Manager) Serving(object string) (Serving, error) {
	v, err := m.lookUp(object)
	if errors.Is(err, backstore.ErrNotFound) {
		return Serving{}, nil
	}
	if err != nil {
		return Serving{}, err
	}
	return m.serving(v)
}

func (m *Manager) serving(v *backstore.Volume) (s Serving, err error) {
	all, err := m.records()
	if err != nil {
		return s, err
	}
	for _, r := range all {
		if r.Volume != v.ID() && !(r.File && v.IsFile() && r.Object == v.Name()) {
			continue
		}
		switch {
		case r.Move != nil && r.Role == Former:
			s.Away = true
		case r.Move != nil && r.Role == Replica:
			s.Out = &NotServedError{fmt.Sprintf("%s: it is the destination of a migration from peer %s, which serves it", objectName(v.IsFile(), v.Name()), r.PeerName)}
		case r.Role == Former:
			s.Out, s.Yields = formerError(objectName(v.IsFile(), v.Name()), r), true
		case r.Role == Replica:
			s.ReadOnly, s.Identity = true, replicaIdentity(r.ID, m.store.ID())
		case s.Identity == [16]byte{} && r.Epoch > 1:
			s.Identity = r.Identity
		}
	}
	return s, nil
}

// replicaIdentity is what initiators see of a replica: neither the source nor the identity
// that the volume has once it is one.
func replicaIdentity(pair ID, store [16]byte) [16]byte {
	h := sha256.New()
	h.Write([]byte("replica"))
	h.Write(pair[:])
	h.Write(store[:])
	return [16]byte(h.Sum(nil))
}

// identityOf returns what initiators see of a LUN on v.
func (m *Manager) identityOf(v *backstore.Volume) (ID, error) {
	s, err := m.serving(v)
	if err != nil {
		return ID{}, err
	}
	if s.Identity != [16]byte{} {
		return s.Identity, nil
	}
	if v.IsFile() {
		return m.store.Identify(admin.FileUnitID(m.store, v.Name())), nil
	}
	return m.store.Identify(v.ID()), nil
}

// NotServedError is why the role of a volume or file keeps it from being served.
type NotServedError struct{ Why string }

func (e *NotServedError) Error() string { return e.Why }

// formerError is why a former source is not served.
func formerError(object string, r *record) error {
	return &NotServedError{fmt.Sprintf("%s: peer %s has taken over, or is about to (odx replicate status %s); `odx replicate failback %s` fetches what it has, and makes this server the source again", object, r.PeerName, r.Name, r.Name)}
}
