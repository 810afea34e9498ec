package backstore

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"odx/backstore/vfs"
)

// crashes are disks as a power cut left them, with what was durable then.
type crashes struct {
	disks  []*disk
	states [][]*model
}

// cutSometimes makes a crashed copy of the disk before one in every odds
// operations that change it.
func (h *history) cutSometimes(odds int, rng *rand.Rand) *crashes {
	c := &crashes{}
	h.disk.fs.SetHook(func(kind vfs.OpKind, _ string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if kind.Changes() && rng.IntN(odds) == 0 && len(c.disks) < 4 {
			c.disks = append(c.disks, h.disk.crash(rng))
			c.states = append(c.states, append([]*model(nil), h.states...))
		}
		return nil
	})
	return c
}

// recovers opens a crashed disk: the store must be what it was after one of the
// operations since the last that was durable, and sound.
func recovers(tb testing.TB, d *disk, states []*model, unit int) (problem string) {
	s, err := Open(context.Background(), d.options(unit))
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	for i, m := range states {
		or := m
		if i+1 < len(states) {
			or = states[i+1]
		}
		diff := m.differs(s, or)
		if diff == "" {
			problem = ""
			break
		}
		problem += fmt.Sprintf("\nnot state %d of %d: %s", i, len(states), diff)
	}
	if problem != "" {
		return problem
	}
	findings, err := s.Check(context.Background())
	if err != nil || len(findings) > 0 {
		return fmt.Sprintf("check: %v %v", findings, err)
	}
	return ""
}

func runHistory(t *testing.T, seed uint64, steps, unit, odds int) {
	rng := rand.New(rand.NewPCG(seed, uint64(unit)))
	h := newHistory(t, rng, unit)
	// Its own source: the store's goroutines come by here too.
	cuts := rand.New(rand.NewPCG(seed, uint64(unit)+1))
	for range steps {
		c := h.cutSometimes(odds, cuts)
		h.step()
		h.disk.fs.SetHook(nil)
		for i, d := range c.disks {
			if problem := recovers(t, d, c.states[i], unit); problem != "" {
				h.fatalf("seed %d unit %d: after a power cut: %s", seed, unit, problem)
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

// histories is how many random histories TestPowerCuts runs; more are for a run
// by hand: go test ./backstore -run TestPowerCuts -histories 1000 -timeout 0.
var histories = flag.Uint64("histories", 6, "random histories that TestPowerCuts runs")

// TestPowerCuts runs random histories against the model and cuts the power
// within them.
func TestPowerCuts(t *testing.T) {
	for seed := range *histories {
		for _, unit := range []int{4 << 10, 16 << 10} {
			t.Run(fmt.Sprintf("seed %d unit %d", seed, unit), func(t *testing.T) {
				runHistory(t, seed, 60, unit, 40)
			})
		}
	}
}
