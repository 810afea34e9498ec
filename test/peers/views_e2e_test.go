//go:build e2e

package peers

import (
	"fmt"
	"testing"

	"odx/internal/kit/harness"
)

// TestToken_Views: a token of A is written to LUNs of B that are no volumes of its store: a
// stripe, a mirror with a plain file, checksums, and the virtual disk in a file.
func TestToken_Views(t *testing.T) {
	const size = 16
	c := servers(t, size*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := newDisk(t, first, 0)
	a.fill(1, 0, 6)
	a.fill(2, 10, 6) // 6 to 10 is a hole
	token := a.token(0, size)
	odx := func(args ...string) {
		t.Helper()
		harness.Must(t, second.Admin(t.Context(), nil, args...))
	}
	for _, leg := range []string{"s0", "s1", "m0", "checked0"} {
		odx("volume", "create", leg, fmt.Sprint(size, "MiB"))
	}
	odx("vhd", "create", "disk.vhdx", fmt.Sprint(size, "MiB"))
	harness.Must(t, second.Change(t.Context(), func(file map[string]any) {
		file["views"] = []any{
			map[string]any{"name": "striped", "stripe": map[string]any{"legs": []string{"s0", "s1"}, "unit": "64KiB"}, "size": fmt.Sprint(size, "MiB")},
			map[string]any{"name": "mirrored", "mirror": map[string]any{"legs": []string{"m0", "backing:" + second.Dir + "/m1.img"}}, "size": fmt.Sprint(size, "MiB")},
			map[string]any{"name": "checked", "verify": map[string]any{"of": "checked0"}},
		}
	}))
	for i, medium := range []string{"view:striped", "view:mirrored", "view:checked", "file:disk.vhdx"} {
		t.Run(medium, func(t *testing.T) {
			lun := 10 + i
			odx("lun", "add", second.IQN, medium, "--lun", fmt.Sprint(lun))
			b := newDisk(t, second, lun)
			b.fill(3, 0, size) // what the hole replaces
			took := b.spend(token, 0, a.want)
			b.same()
			t.Logf("%d MiB in %v", size, took)
		})
	}
	for _, s := range c.Servers {
		sound(t, s)
	}
}
