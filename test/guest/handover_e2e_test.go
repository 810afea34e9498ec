//go:build e2e

package guest

import (
	_ "embed"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
)

//go:embed handover.sh
var handoverScript string

// handovers is how often TestHandover hands over.
var handovers = flag.Int("handovers", 3, "how often TestHandover hands over, before it kills the server")

// TestHandover hands over while fio in the guest writes and verifies: the kernel's
// initiator notices no error and logs in no second time. Then the server is killed and a
// standby takes over: the initiator logs in again, and no command fails.
func TestHandover(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	target := harness.ServeWith(t, kit.Settings{Standby: true}, kit.LUN{Size: 64 << 20}, kit.LUN{Size: 64 << 20})
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s HANDOVERS=%d\n%s", target.Port(), target.IQN, *handovers, handoverScript), guest.Setup{
		With: []guest.Layer{guest.Fio},
		Answer: func(question string) (string, error) {
			switch question {
			case "nothing":
				return "", nil
			case "handover":
				return "", target.Handover(t.Context())
			case "kill":
				if err := target.Kill(); err != nil {
					return "", err
				}
				return "", target.Restart(t.Context())
			case "logins":
				return strconv.Itoa(strings.Count(target.Log(), "initiator logged in")), nil
			}
			return "", fmt.Errorf("what is %q?", question)
		},
	})
}
