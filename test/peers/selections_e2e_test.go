//go:build e2e

package peers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
)

// entry gives a server an entry of replicas, in place of those that it has.
func entry(t *testing.T, s *cluster.Server, entry map[string]any) {
	t.Helper()
	harness.Must(t, s.Change(t.Context(), func(file map[string]any) { file["replicas"] = []any{entry} }))
}

// has waits until a server shows just these volumes, sorted by name.
func has(t *testing.T, s *cluster.Server, want ...string) {
	t.Helper()
	var got []string
	until(t, patience, fmt.Sprintf("server %s has the volumes %q", s.Name, want), func() bool {
		got = volumes(t, s)
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// TestReplicate_Prefix: B follows all volumes of A whose names begin so, those made later too, and
// C other ones; a server that was killed goes on.
func TestReplicate_Prefix(t *testing.T) {
	const size = 8
	c := servers(t, size*mib, "a", "b", "c")
	first, second, third := c.Servers[0], c.Servers[1], c.Servers[2]
	one, two := newDisk(t, first, 0), newDisk(t, first, 1)
	one.fill(1, 0, size)
	two.fill(2, 0, size/2)
	entry(t, second, map[string]any{"name": "all", "peer": "a", "source": "vol*", "to": "of-a-*", "every": "1m"})
	entry(t, third, map[string]any{"name": "one", "peer": "a", "source": "vol1*", "to": "only*", "every": "1m"})
	has(t, second, "of-a-0", "of-a-1", "vol0", "vol1")
	has(t, third, "only", "vol0", "vol1")

	harness.Must(t, first.Admin(t.Context(), nil, "volume", "create", "vol2", "4MiB"), first.Admin(t.Context(), nil, "volume", "create", "other", "4MiB"))
	one.history(rand.New(rand.NewPCG(19, 9)), 5)
	kill(t, second) // what it has missed is made up at its start
	has(t, second, "of-a-0", "of-a-1", "of-a-2", "vol0", "vol1")
	has(t, third, "only", "vol0", "vol1")

	harness.Must(t, second.Admin(t.Context(), nil, "replicate", "run", "of-a-0"))
	for s, replica := range map[*cluster.Server]string{second: "of-a-0", third: "only"} {
		harness.Must(t, s.Admin(t.Context(), nil, "lun", "add", s.IQN, replica, "--lun", fmt.Sprint(copyLUN)))
	}
	compare(t, first.URL(0), copyURL(second))
	compare(t, first.URL(1), copyURL(third))
	allSound(t, c)
}

// TestReplicate_Hash: what B has written itself does not cross where its entry says hash, and does
// at C, whose entry does not. What only A has crosses.
func TestReplicate_Hash(t *testing.T) {
	const size, here = 16, 12
	c := servers(t, size*mib, "a", "b", "c")
	first := c.Servers[0]
	newDisk(t, first, 0).fill(1, 0, size)
	for _, s := range c.Servers[1:] {
		newDisk(t, s, 0).fill(1, 0, size)
		newDisk(t, s, 0).fill(2, here, size-here)
		most, least := int64(size+1)*mib, int64(size*mib)
		options := map[string]any{"name": replicaName, "peer": "a", "source": "vol0", "every": "1h"}
		if s.Name == "b" {
			options["hash"] = true
			most, least = (size-here+1)*mib, (size-here)*mib
		}
		n := crossed(t, s, func() {
			entry(t, s, options)
			has(t, s, replicaName, "vol0", "vol1")
		})
		t.Logf("server %s: %d bytes crossed the wire for %d, of which it has %d", s.Name, n, size*mib, here*mib)
		if n < least || n > most {
			t.Errorf("server %s: %d bytes crossed the wire, want %d to %d", s.Name, n, least, most)
		}
		harness.Must(t, s.Admin(t.Context(), nil, "lun", "add", s.IQN, replicaName, "--lun", fmt.Sprint(copyLUN)))
		compare(t, first.URL(0), copyURL(s))
	}
	allSound(t, c)
}
