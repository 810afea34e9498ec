package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Another server is the target to whose LUNs one moves and another is added, by commands, each
// with a login that both sides prove.
func TestVolumeMigrate_Foreign(t *testing.T) {
	far := startServer(t, odx("serve", "--config", writeConfig(t, strings.Replace(config, "log:", `    authentication:
      users: [{name: odx, secret: "0123456789abcd"}]
      mutual: {name: array, secret: "abcd0123456789"}
log:`, 1))))
	url := "iscsi://" + far.portal + "/" + disksTarget + "/"
	path := writeConfig(t, "# a comment\n"+config)
	s := startServer(t, odx("serve", "--config", path))
	var flags []string
	for name, secret := range map[string]string{"login": "0123456789abcd", "login-target": "abcd0123456789"} {
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		user := map[string]string{"login": "odx", "login-target": "array"}[name]
		flags = append(flags, "--"+name+"-user", user, "--"+name+"-secret-file", file)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		stdout, stderr, status := output(t, append(append(args, "--config", path), flags...)...)
		if status != want {
			t.Errorf("odx %v: exit status %d: %s%s", args, status, stdout, stderr)
		}
		return stdout + stderr
	}
	data := bytes.Repeat([]byte("odx data"), 1<<17)
	d := openSession(t, s.portal, 0)
	defer d.Close()
	if err := d.WriteAt(t.Context(), data, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := run(1, "volume", "migrate", "start", "src", url+"1", "--overwrite"); !strings.Contains(got, url+"1: volume is read-only") {
		t.Errorf("a LUN that is protected: %s", got)
	}
	if got, want := run(0, "volume", "migrate", "start", "src", url+"0"), "migration of volume src to "+url+"0: begun"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	awaitOutput(t, s.stderr, "migration: the LUN has moved")
	got := make([]byte, len(data))
	if err := d.ReadAt(t.Context(), got, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the LUN has other data than was written (%v)", err)
	}
	if got, want := run(0, "lun", "add", disksTarget, url+"1", "--lun", "5", "--read-only"), "LUN 5 of target "+disksTarget+": added, on "+url+"1"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "mutual: {name: array,") != 2 || !strings.HasPrefix(string(text), "# a comment\n") {
		t.Errorf("the file is %s (%v)", text, err)
	}
}
