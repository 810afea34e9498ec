package pair

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
)

// Arrivals is the server of the destination of migrations; package target has it.
type Arrivals interface {
	// Check returns why LUNs on a new volume cannot be served here.
	Check(ctx context.Context, volume string, identity ID, luns []MovedLUN) error
	// Keep stores what the logical unit with an identity has, before it is served.
	Keep(ctx context.Context, identity ID, units []UnitRecord) error
	// Units returns what the logical unit on a volume, or file:NAME, has: of the given identity,
	// unless the configuration says another. One that is not served because a peer takes over
	// from it has what it had when its service ended.
	Units(object string, identity ID) ([]UnitRecord, error)
	// PowerOff drops, of that, what outlives the process and no loss of power.
	PowerOff(ctx context.Context, object string, identity ID) error
	// Adopt is Keep of what the logical unit of a source had, for the one on a volume, or
	// file:NAME, here. Registrations with target ports that it does not have are dropped.
	Adopt(ctx context.Context, object string, identity ID, units []UnitRecord) (dropped int, err error)
	// Serve has the configuration name the LUNs, and serves them. It can be repeated.
	Serve(ctx context.Context, volume string, identity ID, luns []MovedLUN) error
}

// maxMovedLUNs bounds the LUNs on a volume that is moved, maxUnits their records.
const (
	maxMovedLUNs = 256
	maxUnits     = 16
)

// ServeMove does what the source of a migration asks for. from is the name by which this
// server knows the source.
func (m *Manager) ServeMove(ctx context.Context, from string, q v1.PeerMove) (a v1.PeerMoveAnswer, err error) {
	id, err := idOf(q.Pair)
	if err == nil && id == (ID{}) {
		err = fmt.Errorf("%w: no pair is named", blockdev.ErrInvalid)
	}
	store, other := idOf(q.From)
	if err = errors.Join(err, other); err != nil {
		return a, err
	}
	r, err := m.load(id)
	if q.Op == moveOffer && errors.Is(err, ErrNoPair) {
		r, err = m.accept(ctx, id, store, q)
	}
	switch {
	case err != nil:
		return a, err
	case r.PeerStore != store || r.Move == nil || !r.Move.Arrives:
		return a, fmt.Errorf("%w: %v is no migration of that store to here", ErrNoPair, id)
	}
	switch q.Op {
	case moveOffer:
		return moveAnswer(r), nil
	case moveRound:
		return m.doTurn(ctx, r, q)
	case moveTake:
		return m.takeOver(ctx, r, q)
	case moveKeep:
		return m.stay(ctx, id, q.Epoch)
	case moveEnd:
		return a, m.endMoved(ctx, r)
	}
	return a, fmt.Errorf("%w: request %.20q", blockdev.ErrInvalid, q.Op)
}

// moveAnswer describes this side.
func moveAnswer(r *record) v1.PeerMoveAnswer {
	return v1.PeerMoveAnswer{Role: string(r.Role), Epoch: r.Epoch, Common: idText(r.commonID()), Served: r.Move.Served}
}

// accept makes this side the destination of a migration, if it can serve what is moved.
func (m *Manager) accept(ctx context.Context, id ID, store [16]byte, q v1.PeerMove) (*record, error) {
	link, ok := m.o.Resolve(store)
	if !ok {
		return nil, fmt.Errorf("%w: the destination reads from the source; make the source a peer there", backstore.ErrNotFound)
	}
	identity, err := idOf(q.Identity)
	switch {
	case err != nil:
		return nil, err
	case m.o.Arrivals == nil || identity == (ID{}) || q.Volume == "" || len(q.LUNs) == 0 || len(q.LUNs) > maxMovedLUNs:
		return nil, fmt.Errorf("%w: offer of volume %.70q with %d LUNs", blockdev.ErrInvalid, q.Volume, len(q.LUNs))
	}
	// First why the LUN cannot come here at all: another name would not help.
	if err := m.o.Arrivals.Check(ctx, q.To, identity, movedLUNs(q.LUNs)); err != nil {
		return nil, err
	}
	if _, err := m.lookUp(q.To); err == nil {
		return nil, fmt.Errorf("volume %s: %w; choose another name", q.To, backstore.ErrExists)
	}
	name, err := m.freeName(q.Name, link.Name())
	if err != nil {
		return nil, err
	}
	r := &record{
		ID: id, Name: name, Role: Replica, Epoch: q.Epoch, Object: q.To, PeerStore: store, PeerName: link.Name(), PeerObject: q.Volume,
		Identity: identity, Move: &moving{Arrives: true},
	}
	for _, l := range q.LUNs {
		r.Move.LUNs = append(r.Move.LUNs, movedLUN(l))
	}
	if r.Epoch == 0 {
		return nil, fmt.Errorf("%w: offer without an epoch", blockdev.ErrInvalid)
	}
	if err := m.reached("record of the destination"); err != nil {
		return nil, err
	}
	if err := m.put(ctx, r); err != nil {
		return nil, err
	}
	m.log.WithField("volume", q.To).WithField("peer", link.Name()).Info("a volume is being moved here")
	return r, nil
}

// turn is a round that the source has asked for.
type turn struct {
	n       uint64
	running context.Context
	cancel  context.CancelFunc
	done    chan struct{} // closed once it has ended
	at      Attempt
	err     error
}

func (t *turn) ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

const (
	// reportTime is how long an answer waits for the end of a round: so often the source hears how
	// far it is.
	reportTime = time.Second
	// turnWait is how long a request waits for the beginning of a round, or for the end of one that
	// was canceled.
	turnWait = 5 * time.Second
)

// doTurn does a round in the background, unless it is done or under way already.
func (m *Manager) doTurn(ctx context.Context, r *record, q v1.PeerMove) (v1.PeerMoveAnswer, error) {
	p := m.of(r.ID)
	p.mu.Lock()
	t, begins := p.turn, false
	switch {
	case t != nil && (t.n == q.Turn || !t.ended()):
	default:
		begins = true
		t = &turn{n: q.Turn, done: make(chan struct{})}
		t.running, t.cancel = context.WithCancel(context.Background())
		p.turn = t
	}
	p.mu.Unlock()
	if begins {
		if err := m.begin(ctx, t, r, q.BytesPerSecond); err != nil {
			return v1.PeerMoveAnswer{}, err
		}
	}
	timer := time.NewTimer(reportTime)
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	r, err := m.load(r.ID)
	if err != nil {
		return v1.PeerMoveAnswer{}, err
	}
	a := moveAnswer(r)
	if !t.ended() || t.n != q.Turn { // one that another request has begun is older than this request
		a.Running = true
		p.mu.Lock()
		defer p.mu.Unlock()
		a.Bytes = p.progress.V1()
		return a, nil
	}
	a.Bytes, a.TookMS = t.at.V1(), t.at.Took.Milliseconds()
	return a, t.err
}

// begin has a turn run in the background.
func (m *Manager) begin(ctx context.Context, t *turn, r *record, bytesPerSecond int64) error {
	var o RoundOptions
	if bytesPerSecond > 0 {
		o.Limit = rate.NewLimiter(rate.Limit(bytesPerSecond), limitBurst)
	}
	job := func(base context.Context) {
		defer close(t.done)
		defer t.cancel()
		defer context.AfterFunc(base, t.cancel)()
		t.at, t.err = m.attempt(t.running, r, o)
	}
	limited, stop := context.WithTimeout(ctx, turnWait)
	defer stop()
	if err := m.background(limited, job); err != nil {
		t.cancel()
		t.err = err
		close(t.done)
		return err
	}
	return nil
}

// send has Run run a job.
func (m *Manager) send(ctx context.Context, job func(context.Context)) error {
	select {
	case m.jobs <- job:
		return nil
	case <-ctx.Done(): // the server does not run yet, or ends
		return ErrBusy
	}
}

// takeOver makes this side the source, since the other one has given up. A request that has
// succeeded before is answered as that one was.
func (m *Manager) takeOver(ctx context.Context, r *record, q v1.PeerMove) (a v1.PeerMoveAnswer, err error) {
	done, err := m.occupy(r.ID)
	if err != nil {
		return a, err
	}
	defer done()
	if r, err = m.load(r.ID); err != nil {
		return a, err
	}
	if r.Role == Replica {
		point, err := idOf(q.Point)
		if err == nil {
			err = r.fits(q.Epoch, point)
		}
		if err == nil && len(q.Units) > maxUnits {
			err = fmt.Errorf("%w: %d records of a logical unit", blockdev.ErrInvalid, len(q.Units))
		}
		luns := r.luns()
		if err == nil {
			err = m.o.Arrivals.Check(ctx, r.Object, r.Identity, luns)
		}
		if err == nil {
			err = m.o.Arrivals.Keep(ctx, r.Identity, unitRecords(q.Units))
		}
		if err == nil {
			err = m.giveUp(ctx, r.ID)
		}
		if err == nil {
			r, err = m.leadMoved(ctx, r.ID, q.Epoch, point)
		}
		if err != nil {
			return a, err
		}
		m.log.WithField("volume", r.Object).WithField("peer", r.PeerName).Info("a volume has been moved here")
	}
	if r.Role != Source {
		return a, fmt.Errorf("%w: this side is %s", ErrRole, r.Role)
	}
	problem := m.arrive(ctx, r)
	if r, err = m.load(r.ID); err != nil {
		return a, err
	}
	if a = moveAnswer(r); problem != nil {
		a.Problem = problem.Error()
	}
	return a, nil
}

// fits returns why this side cannot take over in an epoch with a point.
func (r *record) fits(epoch uint64, point ID) error {
	switch {
	case r.Role != Replica || r.Epoch != epoch:
		return fmt.Errorf("%w: this side is %s in epoch %d, the caller in %d", ErrRole, r.Role, r.Epoch, epoch)
	case r.Next != nil || r.commonID() != point || point == (ID{}):
		return fmt.Errorf("%w: this side has point %v, the caller %v", ErrNoCommon, r.commonID(), point)
	}
	return nil
}

func (r *record) luns() []MovedLUN {
	var list []MovedLUN
	for _, l := range r.Move.LUNs {
		list = append(list, MovedLUN(l))
	}
	return list
}

// leadMoved makes this side the source, in one step.
func (m *Manager) leadMoved(ctx context.Context, id ID, epoch uint64, point ID) (*record, error) {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err == nil {
		err = r.fits(epoch, point)
	}
	if err != nil {
		return nil, err
	}
	v, err := m.object(r)
	if err != nil {
		return nil, err
	}
	r.Role, r.Epoch = Source, epoch+1
	if err := m.reached("take over"); err != nil {
		return nil, err
	}
	return r, m.protect(ctx, v, r)
}

// arrive serves what has been moved here, if it is not served yet.
func (m *Manager) arrive(ctx context.Context, r *record) error {
	if r.Move.Served {
		return nil
	}
	if err := m.reached("serve what was moved"); err != nil {
		return err
	}
	if err := m.o.Arrivals.Serve(ctx, r.Object, r.Identity, r.luns()); err != nil {
		return err
	}
	return m.change(ctx, r.ID, func(r *record) { r.Move.Served = true })
}

// serveArrivals serves what has been moved here and could not be served at once, or whose
// server was started again before it was.
func (m *Manager) serveArrivals(ctx context.Context) {
	all, err := m.records()
	if err != nil {
		return // the store says so itself
	}
	for _, r := range all {
		if r.Role == Source && r.Move != nil && r.Move.Arrives && !r.Move.Served && ctx.Err() == nil {
			m.arriveAgain(ctx, r)
		}
	}
}

// arriveAgain is arrive without a request of the source.
func (m *Manager) arriveAgain(ctx context.Context, r *record) {
	done, err := m.occupy(r.ID)
	if err != nil {
		return
	}
	defer done()
	if r, err = m.load(r.ID); err != nil || r.Role != Source {
		return
	}
	if err := m.arrive(ctx, r); err != nil {
		m.log.WithField("volume", r.Object).WithError(err).Error("a LUN that was moved here is not served yet")
	}
}

// stay notes an epoch in which the source serves on, unless this side has taken over.
func (m *Manager) stay(ctx context.Context, id ID, epoch uint64) (a v1.PeerMoveAnswer, err error) {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return a, err
	}
	if r.Role == Replica && epoch > r.Epoch {
		r.Epoch = epoch
		if err := m.reached("note that the source stays"); err != nil {
			return a, err
		}
		if err := m.put(ctx, r); err != nil {
			return a, err
		}
	}
	return moveAnswer(r), nil
}

// endTurn cancels a round that the source has asked for, and waits for its end.
func (m *Manager) endTurn(ctx context.Context, p *running) error {
	p.mu.Lock()
	t := p.turn
	p.mu.Unlock()
	if t == nil || t.ended() {
		return nil
	}
	t.cancel()
	limited, stop := context.WithTimeout(ctx, turnWait)
	defer stop()
	select {
	case <-t.done:
		return nil
	case <-limited.Done():
		return ErrBusy
	}
}

// endMoved ends the pair on the destination. Before it has taken over, it deletes what it has.
func (m *Manager) endMoved(ctx context.Context, r *record) error {
	p := m.of(r.ID)
	if err := m.endTurn(ctx, p); err != nil {
		return err // it is asked again
	}
	done, err := m.occupy(r.ID)
	if err != nil {
		return err // it is asked again
	}
	defer done()
	p.changing.Lock()
	defer p.changing.Unlock()
	if r, err = m.load(r.ID); err != nil {
		return err
	}
	if r.Role == Source {
		return m.end(ctx, r)
	}
	// Without a record, a hidden object is removed by the next start.
	v, err := m.object(r)
	if err == nil {
		if err := m.reached("hide what was received"); err != nil {
			return err
		}
		if err := m.store.RenameVolume(ctx, v.Name(), hiddenPrefix+newID().String()); err != nil {
			return err
		}
	} else if !errors.Is(err, backstore.ErrNotFound) {
		return err
	}
	if err := m.end(ctx, r); err != nil || v == nil {
		return err
	}
	if err := m.reached("remove what was received"); err != nil {
		return err
	}
	return m.remove(ctx, v)
}
