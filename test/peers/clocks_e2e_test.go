//go:build e2e

package peers

import (
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
)

// clock returns what a server's clock showed just now.
func clock(t *testing.T, s *cluster.Server) time.Time {
	t.Helper()
	log := s.Log()
	_, last, _ := strings.Cut(log[strings.LastIndex(log, "time=\""):], `"`)
	text, _, _ := strings.Cut(last, `"`)
	now, err := time.Parse(time.RFC3339Nano, text)
	harness.Must(t, err)
	return now
}

// TestClocksApart: the clock of A is an hour ahead of that of B. Tokens of either, which
// live for minutes, are written to LUNs of the other; streams are sent and based on each
// other, both ways.
func TestClocksApart(t *testing.T) {
	const size = 8
	c := start(t, cluster.Options{
		LUNs:  []kit.LUN{{Size: size * mib}, {Size: size * mib}},
		Ahead: map[string]time.Duration{"a": time.Hour},
	}, "a", "b")
	harness.Must(t, c.Introduce(t.Context()))
	if apart := clock(t, c.Servers[0]).Sub(clock(t, c.Servers[1])); apart < 55*time.Minute {
		t.Fatalf("the clocks are %v apart", apart)
	}
	for i, from := range c.Servers {
		to := c.Servers[1-i]
		source, destination := newDisk(t, from, 0), newDisk(t, to, 1)
		source.fill(uint64(i), 0, size)
		token := source.token(0, size)
		destination.spend(token, 0, source.want)
		destination.same()
		unpinned(t, from, 10*time.Second)

		harness.Must(t, from.Admin(t.Context(), nil, "volume", "snapshot", "vol0", "one-"+from.Name))
		harness.Must(t, pipe(t, from, to, []string{"one-" + from.Name}, []string{"copy"}, nil))
		source.fill(uint64(i+10), 2, 2)
		harness.Must(t, from.Admin(t.Context(), nil, "volume", "snapshot", "vol0", "two-"+from.Name))
		harness.Must(t, pipe(t, from, to, []string{"two-" + from.Name, "-i", "one-" + from.Name}, []string{"copy"}, nil))
		harness.Must(t, to.Admin(t.Context(), nil, "lun", "add", to.IQN, "copy", "--lun", "7"))
		compare(t, from.URL(0), copyURL(to))
	}
}
