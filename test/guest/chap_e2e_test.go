//go:build e2e

package guest

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
)

//go:embed chap.sh
var chapScript string

// TestCHAP logs in with open-iscsi: one way and both, with each algorithm, in
// discovery and at the target, whose LUN it may only read.
func TestCHAP(t *testing.T) {
	const secret, targetSecret = "TheSecretOfTheGuest", "TheSecretOfTheTarget"
	authentication := map[string]any{
		"users":  []any{map[string]any{"name": "host", "secret": secret, "initiators": []string{"iqn.2026-11.example.odx:guest"}}},
		"mutual": map[string]any{"name": "target", "secret": targetSecret},
	}
	target := harness.ServeWith(t, kit.Settings{
		Target: map[string]any{
			"authentication": authentication,
			"access": []any{map[string]any{"initiators": []string{"iqn.2026-11.example.odx:*"}, "addresses": []string{"127.0.0.0/8"},
				"luns": []any{map[string]any{"lun": 1, "as": 5, "read_only": true}}}},
		},
		File: map[string]any{"discovery": map[string]any{"authentication": authentication}},
	}, kit.LUN{Size: 64 << 20}, kit.LUN{Size: 64 << 20})
	runScript(t, fmt.Sprintf("PORTAL=10.0.2.2:%d IQN=%s SECRET=%s TARGET_SECRET=%s\n%s",
		target.Port(), target.IQN, secret, targetSecret, chapScript), guest.Setup{})
	for _, algorithm := range []string{"MD5", "SHA1", "SHA256", "SHA3-256"} {
		harness.Logged(t, target, "chap="+algorithm+" ")
	}
	if log := target.Log(); strings.Contains(log, secret) || strings.Contains(log, targetSecret) {
		t.Error("the log shows a secret")
	}
}
