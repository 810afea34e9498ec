//go:build e2e

package peers

import (
	"bytes"
	"fmt"
	"slices"
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
// other; replicas follow, with a lag of seconds, and change roles; and LUNs move: both ways.
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

		name := "replica-of-" + from.Name
		replicate(t, to, "start", from.Name, "vol0", name)
		source.fill(uint64(i+20), 4, 2)
		replicate(t, to, "run", name)
		if lag := lagOf(t, to, name); lag < 0 || lag > time.Minute {
			t.Errorf("the replica on %s is %v behind", to.Name, lag)
		}
		harness.Must(t, to.Admin(t.Context(), nil, "lun", "add", to.IQN, name, "--lun", "8"))
		compare(t, from.URL(0), fmt.Sprintf("iscsi://%s/%s/8", to.Portal, to.IQN))
		replicate(t, to, "failover", name)
		replicate(t, from, "failover", name)
		compare(t, from.URL(0), fmt.Sprintf("iscsi://%s/%s/8", to.Portal, to.IQN))

		target := movedIQN + "-from-" + from.Name
		harness.Must(t, from.AddTarget(t.Context(), map[string]any{"name": target, "luns": []any{map[string]any{"lun": 0, "volume": "moves", "size": "4MiB"}}}))
		harness.Must(t, to.AddTarget(t.Context(), map[string]any{"name": target, "redirect": map[string]any{"to": from.Portal}}))
		since := len(from.Log())
		harness.Must(t, from.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "start", "moves", to.Name+":moved"))
		awaitLog(t, from, since, patience, "migration: the LUN has moved")
		harness.Must(t, from.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "finish", "moves"))
		if !served(t, "iscsi://"+to.Portal+"/"+target+"/0") {
			t.Errorf("the LUN that has moved is not served by %s", to.Name)
		}
	}
}

// lagOf returns how old the state of a replica is, by its server.
func lagOf(t *testing.T, s *cluster.Server, name string) time.Duration {
	t.Helper()
	var r struct {
		Lag float64 `json:"lag_seconds"`
	}
	harness.Must(t, s.Admin(t.Context(), &r, "replicate", "status", name))
	return time.Duration(r.Lag * float64(time.Second))
}

// TestCertificates: a peer whose certificate has expired, or is not valid yet, brings no replica up to
// date and takes none over, and no LUN moves there: all stays as it was, the reason is said, and with a
// valid one it goes on.
func TestCertificates(t *testing.T) {
	c := servers(t, replicaMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := followed(t, c)
	before := slices.Clone(a.want)
	for says, v := range map[string]cluster.Validity{"expired": cluster.Expired, "not yet valid": cluster.NotYet} {
		harness.Must(t, certificate(t, first, v)())
		a.again(first, 0)
		a.fill(uint64(v)+5, 2, 1)
		for _, args := range [][]string{{"run", replicaName}, {"failover", replicaName}} {
			if err := second.Admin(t.Context(), nil, append([]string{"replicate"}, args...)...); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("replicate %q: %v, want %q", args, err, says)
			}
		}
		if role := replicaOf(t, first).Role; role != "source" || !served(t, first.URL(0)) {
			t.Errorf("the source is %s", role)
		}
		if !bytes.Equal(content(t, copyURL(second)), before) {
			t.Error("the replica has changed")
		}
		// The source asks as well.
		harness.Must(t, certificate(t, first, cluster.Valid)(), certificate(t, second, v)())
		err := first.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "start", "vol1", "b:moved")
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("migration: %v, want %q", err, says)
		}
		harness.Must(t, certificate(t, second, cluster.Valid)())
		replicate(t, second, "run", replicaName)
		compare(t, first.URL(0), copyURL(second))
		before = slices.Clone(a.want)
	}
	keepsOnly(t, c)
	allSound(t, c)
}
