//go:build e2e

package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// TestMigrateForeign_Login moves a LUN to one of tgtd that demands a login and proves itself. By
// another address, what is there is not taken for another LUN.
func TestMigrateForeign_Login(t *testing.T) {
	m := newMover(t, kit.StartTGTD)
	adm := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "tgtadm", append([]string{"--lld", "iscsi", "--mode", "account"}, args...)...)
		cmd.Env = append(os.Environ(), "TGT_IPC_SOCKET="+filepath.Join(m.far.Dir, "tgtd.socket"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("tgtadm %v: %v: %s", args, err, out)
		}
	}
	dir := t.TempDir()
	secret := func(user, secret string) string {
		t.Helper()
		adm("--op", "new", "--user", user, "--password", secret)
		path := filepath.Join(dir, user)
		harness.Must(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
		return path
	}
	login := []string{
		"--login-user", "odx", "--login-secret-file", secret("odx", "0123456789abcd"),
		"--login-target-user", "array", "--login-target-secret-file", secret("array", "abcd0123456789"),
	}
	adm("--op", "bind", "--tid", "1", "--user", "odx")
	adm("--op", "bind", "--tid", "1", "--user", "array", "--outgoing")
	all, end := startVerifiers(t, m.Target, partsOf(len(depths)), 4)
	m.begin(login...)
	done := m.finish()
	for _, v := range all {
		v.next(t)
	}
	end(inquiryChanged)
	t.Logf("%d rounds; commands were held for %.0f ms", done.Rounds, done.CutSeconds*1000)
	elsewhere := m.far.URLVia(strings.Replace(m.far.Portal, "127.0.0.1", "localhost", 1), 0)
	err := m.Admin(t.Context(), nil, append([]string{"lun", "add", m.IQN, elsewhere}, login...)...)
	if err == nil || !strings.Contains(err.Error(), "by another address") {
		t.Errorf("the LUN as another one by another address: %v", err)
	}
	harness.Must(t, m.CheckStore(t.Context()))
}
