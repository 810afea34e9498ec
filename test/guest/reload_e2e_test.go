//go:build e2e

package guest

import (
	_ "embed"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
)

//go:embed reload.sh
var reloadScript string

// rounds is how often a LUN comes and goes in TestReload.
var rounds = flag.Int("rounds", 20, "how often a LUN comes and goes in TestReload")

// TestReload has a LUN come and go, secrets change and the level of the log change, while fio
// in the guest writes to another LUN of the same target and verifies: the kernel's initiator
// notices nothing there, learns of each change by a unit attention, and finds the LUN by a
// rescan.
func TestReload(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	harness.RequireODX(t)
	secret := func(n int) string { return fmt.Sprintf("TheSecretOfRound%d", n) }
	users := func(n int) any {
		return map[string]any{"users": []any{
			map[string]any{"name": "host", "secret": secret(n)},
			map[string]any{"name": fmt.Sprintf("other%d", n), "secret": fmt.Sprintf("AnotherSecretThan%d", n)},
		}}
	}
	target := harness.ServeWith(t, kit.Settings{Target: map[string]any{"authentication": users(0)}}, kit.LUN{Size: 64 << 20})
	round := 0
	change := func(comes bool) error {
		return target.Reload(t.Context(), func(config map[string]any) {
			disks := config["targets"].([]any)[0].(map[string]any)
			luns := slices.DeleteFunc(disks["luns"].([]any), func(l any) bool { return l.(map[string]any)["lun"] == 7 })
			if comes {
				round++
				luns = append(luns, map[string]any{"lun": 7, "volume": "seventh", "size": "16MiB"})
				disks["authentication"] = users(round)
				config["log"] = map[string]any{"level": []string{"info", "debug"}[round%2], "format": "text"}
			}
			disks["luns"] = luns
		})
	}
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s ROUNDS=%d SECRET=%s\n%s", target.Port(), target.IQN, *rounds, secret(0), reloadScript), guest.Setup{
		With: []guest.Layer{guest.Fio},
		Answer: func(question string) (string, error) {
			switch question {
			case "come", "go":
				return "", change(question == "come")
			case "secret":
				return secret(round), nil
			case "logins":
				return strconv.Itoa(strings.Count(target.Log(), "initiator logged in")), nil
			}
			return "", fmt.Errorf("what is %q?", question)
		},
	})
	if log := target.Log(); strings.Contains(log, "TheSecretOfRound") {
		t.Error("the log shows a secret")
	}
}
