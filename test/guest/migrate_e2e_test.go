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

//go:embed migrate.sh
var migrateScript string

var (
	// migrations is how often TestMigrate moves the LUN.
	migrations = flag.Int("migrations", 1, "how often TestMigrate moves the LUN to another volume")
	// migratedSize is the size of the LUN, in MiB.
	migratedSize = flag.Int64("migrated-size", 64, "size of the LUN of TestMigrate in MiB")
)

// TestMigrate moves a LUN while fio in the guest writes and verifies: the kernel's initiator
// notices nothing, and commands are held for at most a second.
func TestMigrate(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	target := harness.ServeWith(t, kit.Settings{}, kit.LUN{Size: *migratedSize << 20})
	at, longest := "vol0", 0.0
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s MIGRATIONS=%d\n%s", target.Port(), target.IQN, *migrations, migrateScript), guest.Setup{
		With: []guest.Layer{guest.Fio},
		Answer: func(question string) (string, error) {
			if question == "logins" {
				return strconv.Itoa(strings.Count(target.Log(), "initiator logged in")), nil
			}
			n, ok := strings.CutPrefix(question, "migrate ")
			if !ok {
				return "", fmt.Errorf("what is %q?", question)
			}
			to := "moved" + n
			m, err := target.Migrate(t.Context(), at, to)
			at, longest = to, max(longest, m.CutSeconds)
			return fmt.Sprintf("%.0f", m.CutSeconds*1000), err
		},
	})
	if longest <= 0 || longest > 1 {
		t.Errorf("commands were held for %g s", longest)
	}
	t.Logf("commands were held for %.0f ms at the longest of %d migrations", longest*1000, *migrations)
	harness.Must(t, target.CheckStore(t.Context()))
}
