package rados

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/owner"
)

var (
	simSeeds = flag.Int("seeds", 300, "how many seeds TestDriver_Simulation runs")
	simSeed  = flag.Uint64("seed", 0, "the only seed of TestDriver_Simulation; 0: many")
)

const (
	simDir       = "/store"
	simFile      = simDir + "/journal"
	simProcesses = 3
	simSteps     = 300
)

// simulation is processes that want one store in a pool, which is a counter in a file that is
// written in place. Before any message is sent, others may go on; what a process has sent may
// arrive after its end.
type simulation struct {
	rng       *rand.Rand
	twin      *Twin
	now       time.Duration
	processes []*simProcess
	late      []*Client // of processes that have ended
	acked     uint64    // the largest number that was acknowledged
	faults    simFaults
	claims    int
	reads     int
	err       error
}

// simProcess is a process: it has the store, believes so, or wants it.
//
// A process that has died is followed by one of its line.
type simProcess struct {
	line   Line
	busy   bool // in the middle of a step
	client *Client
	claim  owner.Holding
	until  time.Duration // of the lease
	file   vfs.File
	number uint64
}

func (s *simulation) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("after %v: "+format, append([]any{s.now}, args...)...)
	}
}

// step has a process that is not in the middle of one go on.
func (s *simulation) step() {
	p := s.processes[s.rng.IntN(len(s.processes))]
	if p.busy || s.err != nil {
		return
	}
	p.busy = true
	defer func() { p.busy = false }()
	switch n := s.rng.IntN(100); {
	case n < 10:
		s.now += time.Duration(s.rng.Int64N(int64(2 * time.Second)))
	case n < 15 && len(s.late) > 0:
		i := s.rng.IntN(len(s.late))
		s.late[i].Deliver()
	case p.claim == nil:
		s.take(p)
	case n < 25:
		s.end(p)
	case n < 50:
		s.renew(p)
	case n < 65:
		s.read(p)
	default:
		s.write(p)
	}
}

// take claims the store, and reads the number.
func (s *simulation) take(p *simProcess) {
	p.client = s.twin.Client()
	f := New(p.client)
	if err := f.MkdirAll(simDir); err != nil {
		if !errors.Is(err, ErrFenced) {
			s.fail("mkdir: %v", err)
		}
		return
	}
	if s.rng.IntN(2) == 0 {
		after := p.line
		if s.faults.hasty {
			after = Line{ID: "all", Number: uint64(s.claims) + 1}
		}
		if err := f.Succeed(after); err != nil {
			s.fail("succeed: %v", err)
		}
	}
	asked := s.now
	claim, err := f.Owner(simDir).Claim(context.Background())
	if err != nil {
		if !errors.Is(err, owner.ErrHeld) && !errors.Is(err, owner.ErrLost) {
			s.fail("claim: %v", err)
		}
		return
	}
	file, err := f.Open(simFile)
	if notThere(err) {
		file, err = f.Create(simFile)
	}
	if err == nil {
		p.number, err = readNumber(file)
	}
	if errors.Is(err, owner.ErrLost) {
		return
	}
	if err != nil {
		s.fail("open: %v", err)
		return
	}
	s.claims++
	p.claim, p.file, p.until = claim, file, asked+claim.Lease()
}

func readNumber(f vfs.File) (uint64, error) {
	size, err := f.Size()
	if err != nil || size == 0 {
		return 0, err
	}
	var b [8]byte
	_, err = f.ReadAt(b[:], 0)
	return binary.BigEndian.Uint64(b[:]), err
}

// end ends a process: it gives the store back, or dies with messages on their way.
func (s *simulation) end(p *simProcess) {
	if s.rng.IntN(2) == 0 {
		if err := p.claim.Release(); err != nil {
			s.fail("release: %v", err)
		}
	} else {
		p.client.Cut()
		s.late = append(s.late, p.client)
		p.line.Number++
	}
	p.claim = nil
}

func (s *simulation) renew(p *simProcess) {
	asked := s.now
	if err := p.claim.Renew(context.Background()); err == nil && s.now < p.until {
		p.until = asked + p.claim.Lease()
	} else if err != nil && !errors.Is(err, owner.ErrLost) {
		s.fail("renew: %v", err)
	}
}

// read answers with the number, which the owner has in memory as a store has its maps, if the lease
// holds.
func (s *simulation) read(p *simProcess) {
	if s.now >= p.until {
		return
	}
	if s.reads++; p.number < s.acked {
		s.fail("epoch %d answers %d, and %d was acknowledged", p.claim.Epoch(), p.number, s.acked)
	}
}

// write writes the next number, which counts when it is durable. A process goes on after its lease
// has ended: writes need none.
func (s *simulation) write(p *simProcess) {
	var b [8]byte
	next := p.number + 1
	binary.BigEndian.PutUint64(b[:], next)
	_, err := p.file.WriteAt(b[:], 0)
	if err == nil && s.rng.IntN(4) == 0 {
		s.end(p) // with a write on its way
		return
	}
	if err == nil {
		err = p.file.Sync()
	}
	if err != nil {
		if !errors.Is(err, owner.ErrLost) {
			s.fail("write: %v", err)
		}
		p.claim = nil
		return
	}
	if next <= s.acked {
		s.fail("epoch %d has %d acknowledged, after %d was", p.claim.Epoch(), next, s.acked)
	}
	p.number, s.acked = next, next
}

// simFaults are faults that the simulation has to notice.
type simFaults struct {
	unguarded bool // writes compare no epoch
	hasty     bool // processes are said to have ended that have not
}

func simulate(seed uint64, faults simFaults) *simulation {
	s := &simulation{rng: rand.New(rand.NewPCG(seed, 1)), faults: faults}
	s.twin = NewTwin(func() time.Duration { return s.now })
	for i := range simProcesses {
		s.processes = append(s.processes, &simProcess{line: Line{ID: fmt.Sprint(i), Number: 1}})
	}
	deep := 0
	s.twin.SetHook(func(_ string, c *Change) error {
		if faults.unguarded && len(c.Data) > 0 {
			c.Compare, c.SetEpoch = Any, 0
		}
		if deep++; deep < simProcesses && s.rng.IntN(3) == 0 {
			s.step()
		}
		deep--
		return nil
	})
	for range simSteps {
		if s.err == nil {
			s.step()
		}
	}
	return s
}

// TestDriver_Simulation has processes claim, lose, write and die in every order: nothing that was
// acknowledged is lost or replaced by an earlier owner, and no owner answers with what is older.
func TestDriver_Simulation(t *testing.T) {
	claims, writes, reads, refused := 0, uint64(0), 0, 0
	for seed := range uint64(*simSeeds) {
		if *simSeed != 0 {
			seed = *simSeed - 1
		}
		s := simulate(1+seed, simFaults{})
		if s.err != nil {
			t.Fatalf("seed %d: %v", 1+seed, s.err)
		}
		claims, writes, reads, refused = claims+s.claims, writes+s.acked, reads+s.reads, refused+s.twin.Refused()
	}
	t.Logf("%d claims, %d acknowledged writes, %d answers, %d changes refused", claims, writes, reads, refused)
	if n := *simSeeds; claims < 5*n || writes < uint64(10*n) || reads < 2*n || refused < n/10 {
		t.Error("too few for so many seeds")
	}
}

// TestDriver_SimulationFindsFaults has writes that compare no epoch, and locks that are ended before
// their owners are.
func TestDriver_SimulationFindsFaults(t *testing.T) {
	for name, faults := range map[string]simFaults{"unguarded": {unguarded: true}, "hasty": {hasty: true}} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(500) {
				if s := simulate(1+seed, faults); s.err != nil {
					t.Log("seed", 1+seed, s.err)
					return
				}
			}
			t.Error("not noticed in 500 seeds")
		})
	}
}
