//go:build e2e

package clients

import (
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// TestForeign has libiscsi in qemu write and verify on a LUN of tgtd behind the server, while tgtd
// is killed and started again: no command fails and no session ends.
func TestForeign(t *testing.T) {
	harness.Program(t, "tgtd", "tgt")
	size := int64(len(depths)) * partChunks * chunkLength
	far, err := kit.StartTGTD(t.Context(), t.TempDir(), []kit.LUN{{Size: size}})
	harness.Must(t, err)
	defer func() { harness.Must(t, far.Kill()) }()
	target := harness.ServeWith(t, kit.Settings{}, kit.LUN{Size: size})
	lun := func(config map[string]any) map[string]any {
		disks := config["targets"].([]any)[0].(map[string]any)
		return disks["luns"].([]any)[0].(map[string]any)
	}
	harness.Must(t, target.Reload(t.Context(), func(config map[string]any) {
		l := lun(config)
		delete(l, "volume")
		delete(l, "size")
		l["backing"] = far.URL(0)
	}))
	all, end := startVerifiers(t, target, partsOf(len(depths)), 2)
	for range 2 {
		pauseOf(t, all, func() {
			harness.Must(t, far.Kill())
			harness.Must(t, far.Restart(t.Context()))
		})
	}
	end("")
	if n := logins(target); n != len(all) {
		t.Errorf("%d logins by %d initiators", n, len(all))
	}
	harness.Logged(t, target, "session with the LUN of another target lost", "session with the LUN of another target is there again")
}
