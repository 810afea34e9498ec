//go:build e2e

package guest

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
)

//go:embed migratepeer.sh
var migratePeerScript string

// neighbor is a server that another one is a peer of.
type neighbor struct {
	*kit.Target
	name string
	api  string // URL
}

// neighbors starts two servers with one target name that are peers of each other. The first
// has the LUN, and the other one redirects to it.
func neighbors(t *testing.T, size int64) [2]*neighbor {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	harness.Must(t, os.WriteFile(secret, []byte("what one of two neighbors asks the other"), 0o600))
	var all [2]*neighbor
	for i := range all {
		address, err := kit.FreePortal()
		harness.Must(t, err)
		n := &neighbor{name: string(rune('a' + i)), api: "http://" + address}
		settings := kit.Settings{File: map[string]any{"api": map[string]any{
			"listen": address, "secrets": []any{map[string]any{"name": "neighbor", "role": "peer", "secret_file": secret}},
		}}}
		luns := []kit.LUN{{Size: size}}
		if i == 1 {
			settings.File["targets"] = []any{
				map[string]any{"name": kit.IQN, "redirect": map[string]any{"to": all[0].portal()}},
				map[string]any{"name": kit.IQN + "-other", "luns": []any{map[string]any{"lun": 0, "volume": "other", "size": "1MiB"}}},
			}
			luns = nil
		}
		n.Target = harness.ServeWith(t, settings, luns...)
		all[i] = n
	}
	for i, n := range all {
		other := all[1-i]
		var info struct {
			ID string `json:"id"`
		}
		harness.Must(t, other.Admin(t.Context(), &info, "store", "info"))
		harness.Must(t, n.Reload(t.Context(), func(config map[string]any) {
			config["peers"] = []any{map[string]any{"name": other.name, "store": info.ID, "addresses": []string{other.api}, "secret_file": secret}}
		}))
	}
	return all
}

// portal is where the guest finds the server.
func (n *neighbor) portal() string { return fmt.Sprintf("10.0.2.2:%d", n.Port()) }

// move moves a volume to another server, and returns how long commands were held.
func (n *neighbor) move(t *testing.T, to *neighbor, volume, as string) (m kit.Migration, err error) {
	if err := n.Admin(t.Context(), &m, "volume", "migrate", "start", volume, to.name+":"+as, "--portal", to.portal()); err != nil {
		return m, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for m.State != "moved" {
		var list []kit.Migration
		if err := n.Admin(t.Context(), &list, "volume", "migrate", "list"); err != nil || len(list) != 1 {
			return m, fmt.Errorf("%d migrations: %w", len(list), err)
		}
		if m = list[0]; m.State == "aborted" {
			return m, fmt.Errorf("aborted: %s", m.Problem)
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			return m, t.Context().Err()
		}
	}
	return m, nil
}

// TestMigrate_Peer moves a LUN between servers while fio in the guest writes and verifies: the
// kernel's initiator is redirected, logs in once each time, and fio sees no error.
func TestMigrate_Peer(t *testing.T) {
	t.Parallel() // a guest seldom uses more than one processor
	all := neighbors(t, *migratedSize<<20)
	from, at, longest := 0, "vol0", 0.0
	runScript(t, fmt.Sprintf("PORTAL=%s IQN=%s MIGRATIONS=%d\n%s", all[0].portal(), kit.IQN, *migrations, migratePeerScript), guest.Setup{
		With: []guest.Layer{guest.Fio},
		Answer: func(question string) (string, error) {
			what, n, _ := strings.Cut(question, " ")
			switch what {
			case "migrate":
				m, err := all[from].move(t, all[1-from], at, "moved"+n)
				longest = max(longest, m.CutSeconds)
				return fmt.Sprintf("%.0f", m.CutSeconds*1000), err
			case "finish":
				err := all[from].Admin(t.Context(), new(kit.Migration), "volume", "migrate", "finish", at)
				from, at = 1-from, "moved"+n
				return "", err
			}
			return "", fmt.Errorf("what is %q?", question)
		},
	})
	if longest <= 0 || longest > 1 {
		t.Errorf("commands were held for %g s", longest)
	}
	logins := 0
	for _, n := range all {
		logins += strings.Count(n.Log(), "initiator logged in")
		harness.Must(t, n.CheckStore(t.Context()))
	}
	if logins != 1+*migrations {
		t.Errorf("%d logins for %d migrations", logins, *migrations)
	}
	t.Logf("commands were held for %.0f ms at the longest of %d migrations, with %d logins", longest*1000, *migrations, logins)
}
