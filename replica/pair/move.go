package pair

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/peer"
)

// A migration to another server is a pair whose roles change by a protocol of its own. The
// source drives it:
//
//  1. Offer: both sides have a record. The source is Source, the destination Replica.
//  2. CatchUp: the destination does a round. Rounds repeat; nothing changes for initiators.
//  3. Commands are held and the volume is frozen: one more round, which brings all there is.
//  4. GiveUp: the record of the source says Former. That is durable before anything else
//     happens: from here on the source does not serve without an answer of the destination.
//  5. HandOver: the destination, which has the point that the source names, makes itself the
//     source with the next epoch, durably, and serves. Or it refuses; then the source has it
//     note a later epoch, in which no request of step 5 that is still under way is accepted,
//     and takes its role back.
//
// A destination never takes over by itself, and a source that has given up never serves by
// itself; so at no time do both serve. A side that starts after a crash finds its role in its
// record, and the source repeats step 5: so one of them serves as soon as both are up.

// MovedLUN is a LUN that is moved with its volume. BlockLength is in bytes.
type MovedLUN struct {
	Target      string
	Number      uint16
	BlockLength int
	ReadOnly    bool
}

// UnitRecord is what a logical unit keeps: reservations, mode parameters. Era: it outlives the
// process, and no loss of power.
type UnitRecord struct {
	Key   string
	Era   bool
	Value []byte
}

// Offer is what is to be moved where.
type Offer struct {
	ID     ID
	Peer   string // name of the peer in the configuration
	Volume string
	To     string // name of the volume at the peer
	LUNs   []MovedLUN
	// Identity is what initiators see of the logical unit.
	Identity ID
}

// CheckMove returns why LUNs may not leave a volume: a replica of it would go on following what
// is not served any more, and a replica that was moved would not be brought up to date.
func (m *Manager) CheckMove(v *backstore.Volume) error {
	all, err := m.records()
	if err != nil {
		return err
	}
	for _, r := range all {
		o, err := m.object(r)
		switch {
		case r.Move != nil || errors.Is(err, backstore.ErrNotFound):
			continue
		case err != nil:
			return err
		case o.IsFile() || o.ID() != v.ID():
			continue
		case r.Role == Source:
			return fmt.Errorf("%w: volume %s has the %v, which would not follow; forget that, and start one of the destination after the move", admin.ErrInUse, v.Name(), r)
		}
		return fmt.Errorf("%w: volume %s belongs to the %v, and would not follow its source any more; make it the source by a failover, and then forget the replica", admin.ErrInUse, v.Name(), r)
	}
	return nil
}

// Offer has a peer become the destination of a volume. It can be repeated.
func (m *Manager) Offer(ctx context.Context, o Offer) error {
	r, err := m.load(o.ID)
	if errors.Is(err, ErrNoPair) {
		r, err = m.becomeMoved(ctx, o)
	}
	if err != nil {
		return err
	}
	_, err = m.askMove(ctx, r, moveOffer, func(q *v1.PeerMove) {
		q.Name, q.Volume, q.To, q.Identity, q.LUNs = r.Name, r.Object, o.To, r.Identity.String(), lunsV1(o.LUNs)
	})
	return err
}

// lunsV1 and unitsV1 return the JSON of what is moved; movedLUNs and unitRecords read it.
func lunsV1(list []MovedLUN) (wire []v1.MovedLUN) {
	for _, l := range list {
		wire = append(wire, v1.MovedLUN(l))
	}
	return wire
}

func movedLUNs(wire []v1.MovedLUN) (list []MovedLUN) {
	for _, l := range wire {
		list = append(list, MovedLUN(l))
	}
	return list
}

func unitsV1(list []UnitRecord) (wire []v1.UnitRecord) {
	for _, r := range list {
		wire = append(wire, v1.UnitRecord(r))
	}
	return wire
}

func unitRecords(wire []v1.UnitRecord) (list []UnitRecord) {
	for _, r := range wire {
		list = append(list, UnitRecord(r))
	}
	return list
}

// becomeMoved makes the record of the source.
func (m *Manager) becomeMoved(ctx context.Context, o Offer) (*record, error) {
	link, ok := m.o.Named(o.Peer)
	if !ok {
		return nil, fmt.Errorf("peer %s: %w: the configuration names no such peer", o.Peer, backstore.ErrNotFound)
	}
	v, err := m.lookUp(o.Volume)
	if err != nil {
		return nil, err
	}
	name, err := m.freeName("migration-of-"+o.Volume, o.Peer)
	if err != nil {
		return nil, err
	}
	r := &record{
		ID: o.ID, Name: name, Role: Source, Epoch: 1, Object: v.Name(), Volume: v.ID(), PeerStore: link.Store(), PeerName: o.Peer,
		PeerObject: o.To, Identity: o.Identity, Move: &moving{},
	}
	for _, l := range o.LUNs {
		r.Move.LUNs = append(r.Move.LUNs, movedLUN(l))
	}
	if err := m.reached("record of a migration"); err != nil {
		return nil, err
	}
	return r, m.protect(ctx, v, r)
}

// askMove sends a request about a migration to its destination.
func (m *Manager) askMove(ctx context.Context, r *record, op string, add func(*v1.PeerMove)) (a v1.PeerMoveAnswer, err error) {
	link, err := m.link(r)
	if err != nil {
		return a, err
	}
	q := v1.PeerMove{Op: op, Pair: r.ID.String(), From: ID(m.store.ID()).String(), Epoch: r.Epoch}
	if add != nil {
		add(&q)
	}
	if err := m.reached("ask to " + op); err != nil {
		return a, err
	}
	if a, err = link.Move(ctx, q); err == nil {
		err = m.reached("answered to " + op)
	}
	return a, err
}

// Caught is a round that the destination has done.
type Caught struct {
	Progress
	Took time.Duration
	// Point is what the destination has after it.
	Point ID
}

// CatchUp has the destination of a migration do a round, at so many bytes a second; 0: no
// bound. heard is called with how far it is, each second: Found is then a bound of what differs in
// all of the volume.
func (m *Manager) CatchUp(ctx context.Context, id ID, bytesPerSecond int64, heard func(Progress)) (Caught, error) {
	for turn := rand.Uint64(); ; {
		r, err := m.load(id)
		if err != nil {
			return Caught{}, err
		}
		a, err := m.askMove(ctx, r, moveRound, func(q *v1.PeerMove) { q.Turn, q.BytesPerSecond = turn, bytesPerSecond })
		if err != nil {
			return Caught{}, err
		}
		c := Caught{Took: time.Duration(a.TookMS) * time.Millisecond, Progress: Progress{
			Object: a.Bytes.ComparedBytes, ObjectTotal: a.Bytes.ObjectBytes, Found: a.Bytes.DifferBytes, Fetched: a.Bytes.FetchedBytes, Crossed: a.Bytes.NetworkBytes,
			Expected: a.Bytes.FetchedBytes + a.Bytes.LeftBytes,
		}}
		if heard != nil {
			// Not only what was compared yet.
			so := c.Progress
			so.Found = max(so.Found, so.Expected)
			heard(so)
		}
		if !a.Running {
			c.Point, err = idOf(a.Common)
			return c, err
		}
		if err := ctx.Err(); err != nil {
			return c, err
		}
	}
}

// Points returns the points that this side of a migration has.
func (m *Manager) Points(id ID) (list []ID, err error) {
	r, err := m.load(id)
	if err != nil {
		return nil, err
	}
	for _, p := range r.points() {
		list = append(list, p.ID)
	}
	return list, nil
}

// RoleOf returns the role of this side of a migration; ErrNoPair: there is none.
func (m *Manager) RoleOf(id ID) (Role, error) {
	r, err := m.load(id)
	if err != nil {
		return "", err
	}
	return r.Role, nil
}

// GiveUp makes the source of a migration a former one, which the destination is to take over
// from with the given point. That was taken since the volume was frozen: it is none of those
// before. An error means that this side still is the source.
func (m *Manager) GiveUp(ctx context.Context, id, at ID, before []ID) error {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return err
	}
	if r.Role != Source || r.Move == nil {
		return fmt.Errorf("%w: this side is %s", ErrRole, r.Role)
	}
	if r.find(at) == nil || slices.Contains(before, at) {
		return fmt.Errorf("%w: the destination has not what was written last", ErrNoCommon)
	}
	if err := m.acknowledge(ctx, r, at); err != nil {
		return err
	}
	v, err := m.object(r)
	if err != nil {
		return err
	}
	if by, _ := v.Protected(); !by.Frozen {
		return fmt.Errorf("%w: %v is not frozen", ErrRole, v)
	}
	r.Role, r.Untold = Former, false
	if err := m.reached("give up the source"); err != nil {
		return err
	}
	return m.protect(ctx, v, r)
}

// Outcome is how a migration has been decided.
type Outcome int

// The outcomes.
const (
	// Unknown: the destination has not answered.
	Unknown Outcome = iota
	// Moved: the destination serves.
	Moved
	// Kept: the source is the source again, and the destination will not take over.
	Kept
)

// HandOver has the destination take over from a source that has given up, or takes the role
// back if it refuses. units are what the logical unit keeps. The error says why the outcome is
// Unknown or Kept.
func (m *Manager) HandOver(ctx context.Context, id ID, units []UnitRecord) (Outcome, error) {
	r, err := m.load(id)
	switch {
	case err != nil:
		return Unknown, err
	case r.Role == Source:
		return Kept, fmt.Errorf("%w: this side has taken its role back", ErrRole)
	case r.Role != Former || r.Move == nil:
		return Unknown, fmt.Errorf("%w: this side is %s", ErrRole, r.Role)
	}
	a, err := m.askMove(ctx, r, moveTake, func(q *v1.PeerMove) { q.Point, q.Units = idText(r.commonID()), unitsV1(units) })
	var refused *RefusedError
	switch {
	case err == nil && a.Role == string(Source) && a.Served:
		return Moved, nil
	case err == nil:
		return Unknown, fmt.Errorf("peer %s has taken over, and does not serve yet: %s", r.PeerName, a.Problem)
	case !errors.As(err, &refused) || errors.Is(err, ErrBusy):
		return Unknown, err
	}
	outcome, kept := m.TakeBack(ctx, id)
	if outcome == Moved {
		return Moved, nil
	}
	return outcome, errors.Join(err, kept)
}

// TakeBack makes a source that has given up the source again, unless the destination has taken
// over.
func (m *Manager) TakeBack(ctx context.Context, id ID) (Outcome, error) {
	r, err := m.load(id)
	switch {
	case err != nil:
		return Unknown, err
	case r.Role == Source:
		return Kept, nil
	}
	epoch := r.Epoch + 1
	a, err := m.askMove(ctx, r, moveKeep, func(q *v1.PeerMove) { q.Epoch = epoch })
	switch {
	case err != nil:
		return Unknown, fmt.Errorf("whether the destination has taken over is not known: %w", err)
	case a.Role == string(Source):
		if !a.Served {
			return Unknown, fmt.Errorf("peer %s has taken over, and does not serve yet: %s", r.PeerName, a.Problem)
		}
		return Moved, nil
	}
	return m.keptHere(ctx, id, epoch)
}

// keptHere makes this side the source in an epoch that the destination has noted.
func (m *Manager) keptHere(ctx context.Context, id ID, epoch uint64) (Outcome, error) {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return Unknown, err
	}
	if r.Role != Former || r.Epoch+1 != epoch {
		return Unknown, fmt.Errorf("%w: this side is %s in epoch %d", ErrRole, r.Role, r.Epoch)
	}
	v, err := m.object(r)
	if err != nil {
		return Unknown, err
	}
	r.Role, r.Epoch = Source, epoch
	if err := m.reached("take the role back"); err != nil {
		return Unknown, err
	}
	if err := m.protect(ctx, v, r); err != nil {
		return Unknown, err
	}
	return Kept, nil
}

// EndMove ends a migration on both sides: after it has moved, or while this side is the
// source. It can be repeated. onlyHere: the destination is not asked; nor is one that the
// configuration does not name any more.
func (m *Manager) EndMove(ctx context.Context, id ID, onlyHere bool) error {
	r, err := m.load(id)
	if errors.Is(err, ErrNoPair) {
		return nil
	}
	if err != nil {
		return err
	}
	if !onlyHere {
		if _, err := m.askMove(ctx, r, moveEnd, nil); err != nil && !errors.Is(err, ErrNoPair) && !errors.Is(err, errNoPeer) {
			return notEnded(err)
		}
	}
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	if r, err = m.load(id); err != nil {
		return err
	}
	return m.end(ctx, r)
}

// notEnded says what can be done where the destination of a migration does not end it.
func notEnded(err error) error {
	refused := (*RefusedError)(nil)
	switch {
	case errors.Is(err, peer.ErrDown):
		return fmt.Errorf("%w; if the peer is lost for good, take it out of the configuration: then it is not asked", err)
	case errors.Is(err, ErrBusy):
		return fmt.Errorf("the destination has not ended its last round yet: %w; repeat the command", err)
	case errors.As(err, &refused):
		return fmt.Errorf("the destination refuses to end the migration on its side: %w; put that right there, or end the migration there by `odx replicate forget --local` with its name in `odx replicate list`, and repeat the command", err)
	}
	return err
}

// Unpin lets go of the snapshots that the source of a migration keeps, once it is aborted or the
// destination has answered that it serves.
func (m *Manager) Unpin(ctx context.Context, id ID) error {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if errors.Is(err, ErrNoPair) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.Role == Former && !r.Move.Served {
		r.Move.Served = true
		if err := m.put(ctx, r); err != nil {
			return err
		}
	}
	return m.dropPoints(ctx, r)
}

// ofAdministrator returns the record of a pair whose role an administrator may change: a
// migration only if may allows it.
func (m *Manager) ofAdministrator(name string, may func(*record) bool) (*record, error) {
	r, err := m.named(name)
	if err == nil && r.Move != nil && (may == nil || !may(r)) {
		err = fmt.Errorf("%v: %w: it is a migration; see `odx volume migrate` at its source", r, ErrRole)
	}
	return r, err
}
