package backstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/sample"
)

// powerCut is a disk as a power cut left it, with the states that it may hold: one
// of those since the last that was durable. Where only the process died, and the
// kernel lives, that is one of those since the last that was acknowledged; a power
// cut after it can bring back the others.
type powerCut struct {
	disk    *disk
	states  []*model
	process bool
	durable []*model
}

// crashes says which states a disk may hold now: after a power cut, and after the
// end of the process.
type crashes interface {
	possible() []*model
	survivors() []*model
}

// anything is for crashes of which it is of no interest what they leave.
type anything struct{}

func (anything) possible() []*model  { return nil }
func (anything) survivors() []*model { return nil }

// cutSometimes makes a crashed copy of the disk before one in every odds
// operations that change it, at most limit of them, until stop is called, which
// returns them.
func (d *disk) cutSometimes(rng *rand.Rand, odds, limit int, of crashes) (stop func() []powerCut) {
	var cuts []powerCut
	// Its own source: the store's goroutines come by here, even when it is over.
	rng = rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
	changing := func() {
		d.cutMu.Lock()
		defer d.cutMu.Unlock()
		if rng.IntN(odds) == 0 && len(cuts) < limit {
			if rng.IntN(3) > 0 {
				cuts = append(cuts, powerCut{disk: d.crash(rng), states: of.possible()})
			} else {
				// What is possible first: between the two more can be acknowledged.
				durable, survivors := of.possible(), of.survivors()
				cuts = append(cuts, powerCut{&disk{fs: d.fs.ProcessClone()}, survivors, true, durable})
			}
		}
	}
	d.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind.Changes() {
			changing()
		}
		return nil
	})
	return func() []powerCut {
		d.fs.SetHook(nil)
		d.cutMu.Lock()
		defer d.cutMu.Unlock()
		return cuts
	}
}

// recovers opens the disk: the store must be what it was after one of the
// operations since the last that was durable, and sound. While it is opened,
// checked and closed the power is cut again, if again is positive.
func (c powerCut) recovers(rng *rand.Rand, o Options, again int) (problem string) {
	stop := c.disk.cutSometimes(rng, 8, again, anything{})
	problem, found := opens(c.disk.options(o), c.states)
	if problem != "" {
		return problem
	}
	for i, second := range stop() {
		// Nothing was written in between.
		second.states, second.durable = found, c.durable
		if c.process && !second.process {
			second.states = c.durable
		}
		if problem := second.recovers(rng, o, 0); problem != "" {
			return fmt.Sprintf("after crash %d (of the process: %t) while it recovered from another: %s", i, second.process, problem)
		}
	}
	return ""
}

// opens says what is wrong with a store that must be in one of the states, or
// between two that follow each other, and which these are.
func opens(o Options, states []*model) (problem string, found []*model) {
	s, err := Open(context.Background(), o)
	if err != nil {
		return err.Error(), nil
	}
	defer func() {
		if err := s.Close(); err != nil && problem == "" {
			problem = fmt.Sprintf("close: %v", err)
		}
	}()
	held, err := readModel(s)
	if err != nil {
		return err.Error(), nil
	}
	for i, m := range states {
		or := states[min(i+1, len(states)-1)]
		diff := m.differs(held, or)
		if diff == "" {
			problem, found = "", []*model{m, or}
			break
		}
		problem += fmt.Sprintf("\nnot state %d of %d: %s", i, len(states), diff)
	}
	if problem != "" {
		return problem, nil
	}
	findings, err := s.Check(context.Background())
	if err != nil || len(findings) > 0 {
		return fmt.Sprintf("check: %v %v", findings, err), nil
	}
	return "", found
}

func runHistory(t *testing.T, seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	cutRand := rand.New(rand.NewPCG(seed, 2))
	o := drawOptions(rng)
	odds := 10 << rng.IntN(4)
	t.Logf("seed %d: %d KiB units, %d KiB cache, capacity %d KiB, duplicates stored: %t, power cut before one of %d",
		seed, o.DedupUnit>>10, o.CacheBytes>>10, o.CapacityBytes>>10, o.StoreDuplicates, odds)
	d := newDisk()
	h := newHistory(t, rng, func() (*Store, error) { return Open(context.Background(), d.options(o)) })
	h.acks = cutRand.IntN(4) > 0
	for range steps {
		stop := d.cutSometimes(cutRand, odds, 4, h)
		h.step()
		for _, c := range stop() {
			if problem := c.recovers(cutRand, o, 1); problem != "" {
				h.fatalf("after a crash (of the process: %t): %s", c.process, problem)
			}
		}
	}
	h.verify()
	h.reopen()
	h.verify()
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// possible returns the states that a power cut now may leave.
func (h *history) possible() []*model {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*model(nil), h.states...)
}

// survivors returns the states that the end of the process now may leave.
func (h *history) survivors() []*model {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*model(nil), h.states[h.kept:]...)
}

// TestPowerCuts runs random histories against the model, in stores with
// different options, and cuts the power within them.
func TestPowerCuts(t *testing.T) {
	forSeeds(t, sample.Size[uint64](1, 3, 8), func(t *testing.T, seed uint64) { runHistory(t, seed, 60) })
}
