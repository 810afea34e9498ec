package odx_test

import (
	"os"
	"strings"
	"testing"
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
