package backstore

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"odx/backstore/vfs"
)

// powerCut is a disk as a power cut left it, with the states that it may hold: one
// of those since the last that was durable.
type powerCut struct {
	disk   *disk
	states []*model
}

// cutSometimes makes a crashed copy of the disk before one in every odds
// operations that change it, at most limit of them, until stop is called, which
// returns them.
func (d *disk) cutSometimes(rng *rand.Rand, odds, limit int, states func() []*model) (stop func() []powerCut) {
	var cuts []powerCut
	// Its own source: the store's goroutines come by here, even when it is over.
	rng = rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
	changing := func() {
		d.cutMu.Lock()
		defer d.cutMu.Unlock()
		if rng.IntN(odds) == 0 && len(cuts) < limit {
			cuts = append(cuts, powerCut{d.crash(rng), states()})
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
	stop := c.disk.cutSometimes(rng, 8, again, func() []*model { return nil })
	problem, found := opens(c.disk.options(o), c.states)
	if problem != "" {
		return problem
	}
	for i, second := range stop() {
		// Nothing was written in between.
		second.states = found
		if problem := second.recovers(rng, o, 0); problem != "" {
			return fmt.Sprintf("after power cut %d while it recovered from another: %s", i, problem)
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
	for range steps {
		stop := d.cutSometimes(cutRand, odds, 4, h.possible)
		h.step()
		for _, c := range stop() {
			if problem := c.recovers(cutRand, o, 1); problem != "" {
				h.fatalf("after a power cut: %s", problem)
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

// histories is how many random histories TestPowerCuts runs at least.
var histories = flag.Uint64("histories", 10, "random histories that TestPowerCuts runs")

// TestPowerCuts runs random histories against the model, in stores with
// different options, and cuts the power within them.
func TestPowerCuts(t *testing.T) {
	forSeeds(t, *histories, func(t *testing.T, seed uint64) { runHistory(t, seed, 60) })
}
