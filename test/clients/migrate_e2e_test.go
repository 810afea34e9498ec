//go:build e2e

package clients

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// migrations is how often TestMigrate moves the LUN.
var migrations = flag.Int("migrations", 3, "how often TestMigrate moves the LUN to another volume")

// TestMigrate has libiscsi in qemu write and verify while the LUN moves from volume to
// volume: no command fails, no session ends, and commands are held for at most a second.
func TestMigrate(t *testing.T) {
	target := harness.ServeWith(t, kit.Settings{}, kit.LUN{Size: int64(len(depths)) * partChunks * chunkLength})
	all, end := startVerifiers(t, target, partsOf(len(depths)), *migrations)
	var pauses []time.Duration
	longest, at := 0.0, "vol0"
	for i := range *migrations {
		to := fmt.Sprintf("moved%d", i)
		pauses = append(pauses, pauseOf(t, all, func() {
			m, err := target.Migrate(t.Context(), at, to)
			harness.Must(t, err)
			longest = max(longest, m.CutSeconds)
		}))
		at = to
	}
	end("")
	if n := logins(target); n != len(all) {
		t.Errorf("%d logins by %d initiators", n, len(all))
	}
	if longest > 1 {
		t.Errorf("commands were held for %g s", longest)
	}
	t.Logf("commands were held for %.0f ms at the longest", longest*1000)
	report(t, "migrations", pauses)
	harness.Must(t, target.CheckStore(t.Context()))
}
