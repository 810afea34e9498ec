package odx_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"odx/internal/kit/must"
)

// TestUnit_CredentialsOutOfReach: systemd reads credentials as root and follows links, so
// that none is where the server can put a link: who takes over the server would read every
// file of the machine at the next restart.
func TestUnit_CredentialsOutOfReach(t *testing.T) {
	text, err := os.ReadFile("packaging/odx.service")
	if err != nil {
		t.Fatal(err)
	}
	values := func(key string) (list []string) {
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
				list = append(list, strings.Fields(value)...)
			}
		}
		return list
	}
	writable := append(values("ReadWritePaths"), "/var/lib/odx", "/var/log/odx", "/run/odx")
	credentials := values("LoadCredential")
	if len(credentials) == 0 {
		t.Fatal("the unit has no credentials; remove this test")
	}
	for _, c := range credentials {
		_, path, _ := strings.Cut(c, ":")
		for _, dir := range writable {
			if strings.HasPrefix(path+"/", dir+"/") {
				t.Errorf("%s is below %s, which the server can write to", path, dir)
			}
		}
	}
}

// TestUnit_Verify has systemd judge the unit, without and with the drop-in for stores in pools.
func TestUnit_Verify(t *testing.T) {
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd is not installed: ", err)
	}
	program, err := os.Executable()
	must.Succeed(t, err)
	for _, dropIn := range []string{"", "packaging/odx-rados.conf"} {
		dir := t.TempDir()
		// install copies a file, with programs that are there.
		install := func(from, to string) {
			text, err := os.ReadFile(from)
			must.Succeed(t, err)
			text = []byte(strings.NewReplacer("/usr/bin/odx-rados ", program+" ", "/usr/bin/odx ", program+" ").Replace(string(text)))
			must.Succeed(t, os.MkdirAll(filepath.Dir(to), 0o700))
			must.Succeed(t, os.WriteFile(to, text, 0o600))
		}
		unit := filepath.Join(dir, "odx.service")
		install("packaging/odx.service", unit)
		if dropIn != "" {
			install(dropIn, filepath.Join(unit+".d", "rados.conf"))
		}
		cmd := exec.CommandContext(t.Context(), verify, "verify", "--man=no", unit)
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":/usr/lib/systemd/system:/lib/systemd/system")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), dir) {
			t.Errorf("with drop-in %q: %v: %s", dropIn, err, out)
		}
	}
}
