package owner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"odx/internal/kit/sample"
)

// What a simulation is of.
const (
	simOwners = 4
	simLease  = 4 * time.Second
	simMargin = 500 * time.Millisecond
	simTime   = 2 * time.Minute
	// simDrift is how many millionths clocks go faster or slower.
	simDrift = 10000
)

// fault is what a simulation leaves out, to see that it would notice.
type fault int

const (
	nothing        fault = iota
	wallClock            // leases by a clock that is set
	noMargin             // as long as the engine has them
	checkedBefore        // an answer is sent without a look at the lease once it is ready
	unfencedWrites       // the engine does not compare epochs
)

// simulation is an engine with one value, and owners of it, in virtual time. One of its
// goroutines runs at a time.
type simulation struct {
	rng    *rand.Rand
	fault  fault
	now    time.Duration
	asleep []*sleeper
	yield  chan struct{}

	memory *Memory
	owners []*simOwner
	// value is what the engine has, and acknowledged what a client knows that it wrote.
	value, acknowledged int
	claims, writes      int
	err                 error
}

type sleeper struct {
	until time.Duration
	wake  chan struct{}
}

// sleep is called by a goroutine of the simulation.
func (s *simulation) sleep(d time.Duration) {
	me := &sleeper{until: s.now + d, wake: make(chan struct{})}
	s.asleep = append(s.asleep, me)
	s.yield <- struct{}{}
	<-me.wake
}

// pause is how long a step takes: mostly as long as a message, sometimes longer than a
// lease.
func (s *simulation) pause() {
	d := time.Duration(s.rng.IntN(20)) * time.Millisecond
	if s.rng.IntN(15) == 0 {
		d += time.Duration(s.rng.Int64N(int64(2 * simLease)))
	}
	s.sleep(d)
}

// run simulates until simTime.
func (s *simulation) run() error {
	s.memory = NewMemory(0, simLease, simMargin, s.drifting())
	for range simOwners {
		o := &simOwner{s: s, boot: s.drifting()}
		s.owners = append(s.owners, o)
		go o.run()
		<-s.yield
	}
	for s.err == nil && s.now < simTime {
		i := 0
		for k, other := range s.asleep {
			if other.until < s.asleep[i].until {
				i = k
			}
		}
		next := s.asleep[i]
		s.asleep = slices.Delete(s.asleep, i, i+1)
		s.now = max(s.now, next.until)
		s.look()
		next.wake <- struct{}{}
		<-s.yield
		s.look()
	}
	for _, left := range s.asleep {
		left.wake <- struct{}{} // its goroutine ends without another sleep
		<-s.yield
	}
	return s.err
}

// drifting returns a clock that never jumps.
func (s *simulation) drifting() func() time.Duration {
	drift := time.Duration(s.rng.IntN(2*simDrift+1) - simDrift)
	return func() time.Duration { return s.now + s.now/1e6*drift }
}

func (s *simulation) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("after %v: "+format, append([]any{s.now}, args...)...)
	}
}

// look counts those that would answer if they were asked now.
func (s *simulation) look() {
	var holding []uint64
	for _, o := range s.owners {
		if o.owner != nil && o.owner.lost.Load() == nil && int64(o.owner.now()) < o.owner.until.Load() {
			holding = append(holding, o.owner.Epoch())
		}
	}
	if len(holding) > 1 {
		s.fail("owners with the epochs %v", holding)
	}
}

// over: the goroutines are to end.
func (s *simulation) over() bool { return s.err != nil || s.now >= simTime }

// simOwner is a process that wants the store.
type simOwner struct {
	s     *simulation
	boot  func() time.Duration
	set   time.Duration // how far the wall clock is off
	owner *Owner
}

// clock is what leases are measured by.
func (o *simOwner) clock() time.Duration {
	if o.s.fault == wallClock {
		return o.boot() + o.set
	}
	return o.boot()
}

func (o *simOwner) run() {
	defer func() { o.s.yield <- struct{}{} }()
	for !o.s.over() {
		o.s.pauseOrEnd()
		o.step()
	}
}

// pauseOrEnd is pause, unless the simulation is over.
func (s *simulation) pauseOrEnd() {
	if !s.over() {
		s.pause()
	}
}

func (o *simOwner) step() {
	ctx := context.Background()
	switch n := o.s.rng.IntN(100); {
	case n < 2:
		o.set += time.Duration(o.s.rng.Int64N(int64(time.Hour))) - 30*time.Minute
	case o.owner == nil:
		owner, err := newOwner(ctx, o.claim, o.clock)
		if err == nil {
			o.owner = owner
			o.s.claims++
		} else if !errors.Is(err, ErrHeld) && !errors.Is(err, ErrLost) {
			o.s.fail("claim: %v", err)
		}
	case n < 4:
		o.leave()
	case n < 30:
		if err := o.owner.renew(ctx); err != nil {
			o.leave()
		}
	case n < 65:
		o.read()
	default:
		o.write()
	}
}

// leave gives the store back, or dies without that.
func (o *simOwner) leave() {
	if o.s.rng.IntN(2) == 0 {
		if err := o.owner.Release(); err != nil {
			o.s.fail("release: %v", err)
		}
	}
	o.owner = nil
}

// read answers a client that asks now.
func (o *simOwner) read() {
	acknowledged := o.s.acknowledged
	if o.owner.Check() != nil {
		return
	}
	o.s.pauseOrEnd()
	value := o.s.value
	o.s.pauseOrEnd()
	if o.s.fault != checkedBefore && o.owner.Check() != nil {
		return
	}
	if value < acknowledged {
		o.s.fail("epoch %d answers %d, and a client knows of %d", o.owner.Epoch(), value, acknowledged)
	}
	if o.s.fault == checkedBefore && o.s.memory.Epoch() != o.owner.Epoch() {
		o.s.fail("epoch %d answers, and %d is the owner", o.owner.Epoch(), o.s.memory.Epoch())
	}
}

// write is a read of a value, and a write of the next one that depends on it.
func (o *simOwner) write() {
	value := o.s.value
	o.s.pauseOrEnd()
	if o.owner.Check() != nil {
		return
	}
	o.s.pauseOrEnd()
	if o.s.fault != unfencedWrites && o.s.memory.Admits(o.owner.Epoch()) != nil {
		return
	}
	if value != o.s.value {
		o.s.fail("epoch %d overwrites %d, which it has not seen, with %d", o.owner.Epoch(), o.s.value, value+1)
	}
	o.s.value = value + 1
	o.s.pauseOrEnd()
	if o.owner.Check() != nil {
		return // it is written; the client does not learn that from this owner
	}
	o.s.acknowledged = max(o.s.acknowledged, value+1)
	o.s.writes++
}

// claim is Memory.Claim by messages that take their time.
func (o *simOwner) claim(ctx context.Context) (Holding, error) {
	o.s.pauseOrEnd()
	h, err := o.s.memory.Claim(ctx)
	o.s.pauseOrEnd()
	return simHolding{h, o}, err
}

type simHolding struct {
	Holding
	o *simOwner
}

func (h simHolding) Lease() time.Duration {
	if h.o.s.fault == noMargin {
		return simLease
	}
	return h.Holding.Lease()
}

func (h simHolding) Renew(ctx context.Context) error {
	h.o.s.pauseOrEnd()
	err := h.Holding.Renew(ctx)
	h.o.s.pauseOrEnd()
	return err
}

func simulate(seed uint64, f fault) (*simulation, error) {
	s := &simulation{rng: rand.New(rand.NewPCG(seed, 1)), fault: f, yield: make(chan struct{})}
	err := s.run()
	return s, err
}

// There are never two owners, whatever pauses, and however clocks are set.
func TestOwner_Simulation(t *testing.T) {
	claims, writes, seeds := 0, 0, sample.Size(100, 500, 50_000)
	for seed := range uint64(seeds) {
		s, err := simulate(seed, nothing)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		claims, writes = claims+s.claims, writes+s.writes
	}
	t.Logf("%d seeds, %d claims, %d acknowledged writes", seeds, claims, writes)
	if claims < 5*seeds || writes < 20*seeds {
		t.Errorf("%d claims and %d acknowledged writes in %d seeds: too few", claims, writes, seeds)
	}
}

// The simulation notices what must not be left out.
func TestOwner_SimulationFindsFaults(t *testing.T) {
	for f, name := range map[fault]string{
		wallClock: "wall clock", noMargin: "no margin", checkedBefore: "no look at the answer", unfencedWrites: "unfenced writes",
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(200) {
				if _, err := simulate(seed, f); err != nil {
					t.Log("seed", seed, err)
					return
				}
			}
			t.Error("not noticed in 200 seeds")
		})
	}
}
