//go:build e2e

package survival

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	client "odx/initiator"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// takeovers is how often TestTakeover kills the owner of the store.
var takeovers = flag.Int("takeovers", 25, "how often TestTakeover kills the owner of the store")

// longestTakeover is when, at the latest, the second process of a round is killed too.
const longestTakeover = 20 * time.Millisecond

// TestTakeover is TestKilledUnderMixedLoad with a standby: it serves when the owner was
// killed. In half of the rounds it is killed too while it takes over, and another one
// starts. Nothing that was acknowledged is lost, and no connection is refused while a standby
// waits.
func TestTakeover(t *testing.T) {
	target := harness.ServeWith(t, kit.Settings{Standby: true}, kit.LUN{Size: mixedWorkers * mixedPart * blockLength}, kit.LUN{Size: 1 << 20})
	r := rand.New(rand.NewPCG(10, uint64(*takeovers)))
	workers := newMixedLoad(15)
	var gaps []time.Duration
	for round := range *takeovers {
		// A worker that logs in after the kill finds the standby, which is not killed.
		working, end := context.WithCancel(t.Context())
		done := make(chan time.Time, 1)
		time.AfterFunc(time.Duration(r.Int64N(int64(longestMixed))), func() {
			at := time.Now()
			if err := target.Kill(); err != nil {
				t.Error(err)
			}
			end()
			done <- at
		})
		wait := workers.start(working, t, target.URL(0))
		wait()
		killed := <-done
		if r.IntN(2) == 0 {
			time.Sleep(time.Duration(r.Int64N(int64(longestTakeover)))) // the fault, not a wait
			if err := target.KillStandby(); err != nil {
				t.Fatal(err)
			}
		} else {
			gaps = append(gaps, acknowledged(t, target.URL(1), killed))
		}
		workers.restart(t, target, round)
	}
	t.Logf("%d takeovers, %d commands were acknowledged without a flush, none is lost", *takeovers, workers.proves(t, *takeovers))
	if slices.Sort(gaps); len(gaps) > 0 {
		t.Logf("from the kill of the owner to the first acknowledged command of its standby: median %v, longest %v of %d",
			gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond), len(gaps))
	}
}

// acknowledged logs in once and writes, and returns how long after a time that was
// acknowledged.
func acknowledged(t *testing.T, url string, since time.Time) time.Duration {
	t.Helper()
	u, err := client.ParseURL(url)
	harness.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, err := client.Open(ctx, client.Options{URL: u, InitiatorName: "iqn.2026-11.example:gap"})
	if err != nil {
		t.Fatalf("a login while a standby takes over: %v", err)
	}
	defer d.Close()
	harness.Must(t, d.WriteAt(ctx, make([]byte, 4096), 0))
	return time.Since(since)
}
