//go:build e2e

package survival

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	client "odx/initiator"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// handovers is how many rounds TestHandover has.
var handovers = flag.Int("handovers", 25, "rounds of TestHandover, in half of which everything that serves is killed in the middle")

// longestHandover is when, at the latest, a handover of a round is interrupted.
const longestHandover = 150 * time.Millisecond

// TestHandover hands over while several initiators write, copy and compare, with the write
// cache on and without a flush. They go on in their sessions. In half of the rounds both
// processes are killed at a random time of the handover, and a standby takes over. Nothing
// that was acknowledged is lost.
func TestHandover(t *testing.T) {
	target := harness.ServeWith(t, kit.Settings{Standby: true}, kit.LUN{Size: mixedWorkers * mixedPart * blockLength}, kit.LUN{Size: 1 << 20})
	r := rand.New(rand.NewPCG(11, uint64(*handovers)))
	workers := newMixedLoad(16)
	var gaps []time.Duration
	for round := range *handovers {
		// A worker that logs in after the kill finds the standby, which is not killed.
		working, end := context.WithCancel(t.Context())
		wait := workers.start(working, t, target.URL(0))
		watched := watchGap(t, target.URL(1))
		time.Sleep(time.Duration(r.Int64N(int64(longestMixed)))) // the load, not a wait
		if r.IntN(2) == 0 {
			harness.Must(t, target.BeginHandover())
			time.Sleep(time.Duration(r.Int64N(int64(longestHandover)))) // until the fault
			watched.interrupted()
		} else {
			if err := target.Handover(t.Context()); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			gaps = append(gaps, watched.stop())
		}
		harness.Must(t, target.Kill())
		end()
		wait()
		workers.restart(t, target, round)
	}
	t.Logf("%d handovers or what a kill made of them, %d commands were acknowledged without a flush, none is lost", *handovers, workers.proves(t, *handovers))
	if slices.Sort(gaps); len(gaps) > 0 {
		t.Logf("pause of an initiator: median %v, longest %v of %d", gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond), len(gaps))
	}
}

// gap is an initiator that sends one command after the other in one session, and the longest
// time from one answer to the next.
type gap struct {
	end    context.CancelFunc
	result chan gapResult
	t      *testing.T
}

type gapResult struct {
	longest time.Duration
	err     error
}

func watchGap(t *testing.T, url string) *gap {
	t.Helper()
	u, err := client.ParseURL(url)
	harness.Must(t, err)
	d, err := client.Open(t.Context(), client.Options{URL: u, InitiatorName: "iqn.2026-11.example:gap"})
	harness.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	g := &gap{end: cancel, result: make(chan gapResult, 1), t: t}
	go func() {
		defer d.Close()
		var r gapResult
		block := make([]byte, 4096)
		for last := time.Now(); ctx.Err() == nil && r.err == nil; {
			if r.err = d.WriteAt(context.Background(), block, 0); r.err == nil {
				now := time.Now()
				r.longest = max(r.longest, now.Sub(last))
				last = now
			}
		}
		g.result <- r
	}()
	return g
}

// stop returns the longest pause. The session has to be the first one still.
func (g *gap) stop() time.Duration {
	g.t.Helper()
	g.end()
	r := <-g.result
	if r.err != nil {
		g.t.Error(fmt.Errorf("an initiator did not get over a handover: %w", r.err))
	}
	return r.longest
}

// interrupted lets the initiator find out for itself that the target has ended.
func (g *gap) interrupted() { g.end() }
