//go:build e2e

package clients

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

var (
	handovers = flag.Int("handovers", 3, "how often TestHandover hands over")
	takeovers = flag.Int("takeovers", 1, "how often TestTakeover kills the owner of the store")
)

// handoverLimit is how long one handover or takeover may take, with the work around it.
const handoverLimit = 20 * time.Second

// depths are the commands outstanding of each client. The pause of the first one is measured.
var depths = []int{1, 8}

// startVerifiers starts clients that work until the returned function is called, which
// waits for them and has them compare everything. Each of their complaints has to contain
// what is allowed; "" allows none.
func startVerifiers(t *testing.T, target *kit.Target, parts []*part, rounds int) (all []*verifier, end func(allowed string)) {
	t.Helper()
	alive, kill := context.WithTimeout(t.Context(), time.Duration(rounds+1)*handoverLimit)
	t.Cleanup(kill)
	working, stop := context.WithCancel(alive)
	for i, depth := range depths {
		q := startQemuIO(alive, t, target, fmt.Sprintf("iqn.2026-11.example.qemu:depth%d", depth))
		all = append(all, verify(working, q, parts[i], depth))
	}
	return all, func(allowed string) {
		t.Helper()
		stop()
		for _, v := range all {
			v.end(t, allowed)
		}
	}
}

// TestHandover has libiscsi in qemu write and verify while the server hands over: no
// command fails and no session ends.
func TestHandover(t *testing.T) {
	target := harness.ServeWith(t, kit.Settings{}, kit.LUN{Size: int64(len(depths)) * partChunks * chunkLength})
	all, end := startVerifiers(t, target, partsOf(len(depths)), *handovers)
	var pauses []time.Duration
	for range *handovers {
		pauses = append(pauses, pauseOf(t, all, func() { harness.Must(t, target.Handover(t.Context())) }))
	}
	end("")
	if n := logins(target); n != len(all) {
		t.Errorf("%d logins by %d initiators", n, len(all))
	}
	report(t, "handovers", pauses)
}

// TestTakeover kills the server while libiscsi in qemu writes and verifies, and a standby
// takes over: clients log in again by themselves, once, and no command fails. Each time the
// clients are new ones: libiscsi waits before it reconnects twice in five seconds.
func TestTakeover(t *testing.T) {
	target := harness.ServeWith(t, kit.Settings{Standby: true}, kit.LUN{Size: int64(len(depths)) * partChunks * chunkLength})
	parts := partsOf(len(depths))
	var pauses []time.Duration
	for round := range *takeovers {
		all, end := startVerifiers(t, target, parts, 1)
		pauses = append(pauses, pauseOf(t, all, func() {
			harness.Must(t, target.Kill())
			harness.Must(t, target.Restart(t.Context()))
		}))
		end("UNIT_ATTENTION")
		if n, want := logins(target), 2*len(all)*(round+1); n != want {
			t.Errorf("%d logins, not %d", n, want)
		}
	}
	report(t, "takeovers", pauses)
}

// pauseOf returns how long the longest command of the first verifier took while the server
// was replaced. All of them work before it and after it.
func pauseOf(t *testing.T, all []*verifier, replace func()) time.Duration {
	t.Helper()
	for _, v := range all {
		v.next(t)
		v.pause()
	}
	replace()
	for _, v := range all {
		v.next(t)
	}
	return all[0].pause()
}

// logins is how often initiators have logged in.
func logins(target *kit.Target) int { return strings.Count(target.Log(), "initiator logged in") }

// report logs the median of pauses, and the longest one.
func report(t *testing.T, what string, pauses []time.Duration) {
	t.Helper()
	slices.Sort(pauses)
	t.Logf("pause of a client over %d %s: median %v, longest %v", len(pauses), what,
		pauses[len(pauses)/2].Round(time.Millisecond), pauses[len(pauses)-1].Round(time.Millisecond))
}
