//go:build e2e

package peers

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
)

// TestCopy: odx copy on B makes a volume, a file and a LUN of B, and a file of the machine, equal
// to a volume of A. Bytes go through the command only to the last one, and no token is left.
func TestCopy(t *testing.T) {
	const size = 16
	c := start(t, cluster.Options{LUNs: []kit.LUN{{Size: size * mib}, {Size: size * mib}}}, "a", "b")
	harness.Must(t, c.Introduce(t.Context()))
	first, second := c.Servers[0], c.Servers[1]
	a := newDisk(t, first, 0)
	a.fill(1, 0, 6)
	a.fill(2, 10, 6) // 6 to 10 is a hole
	source := "peer:a:vol0"
	dir := t.TempDir()
	plain, read := filepath.Join(dir, "plain"), filepath.Join(dir, "read")
	for _, tt := range []struct {
		to     []string
		tokens bool // bytes go from server to server, not through the command
	}{
		{[]string{"made", "--create"}, true},
		{[]string{"file:made.raw"}, true},
		{[]string{second.URL(1)}, true},
		{[]string{plain}, false},
	} {
		var result struct {
			Bytes  int64 `json:"bytes"`
			Tokens int64 `json:"token_bytes"`
		}
		harness.Must(t, second.Admin(t.Context(), &result, append([]string{"copy", source}, tt.to...)...))
		if result.Bytes != size*mib || (result.Tokens == result.Bytes) != tt.tokens {
			t.Errorf("to %s: %+v", tt.to[0], result)
		}
	}
	for _, made := range []string{"made", "file:made.raw"} {
		harness.Must(t, second.Admin(t.Context(), nil, "copy", made, read, "--overwrite"))
		same(t, made, read, a.want)
	}
	same(t, "a file of the machine", plain, a.want)
	b := newDisk(t, second, 1)
	b.want = a.want
	b.same()
	var live []any
	harness.Must(t, first.Admin(t.Context(), &live, "token", "list"))
	if len(live) != 0 {
		t.Errorf("%d tokens are left", len(live))
	}
	unpinned(t, first, 10*time.Second)
}

func same(t *testing.T, what, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	harness.Must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s has other bytes, the first at %d", what, firstDifference(got, want))
	}
}
