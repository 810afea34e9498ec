package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"odx/conf"
)

// withSecrets is a configuration whose secrets are in the file and next to it.
const withSecrets = config + `discovery: {authentication: {users: [{name: one, secret_file: one.secret}, {name: two, secret: what must not be seen}]}}
api: {listen: "127.0.0.1:0", secret_file: api.secret, certificate: api.pem, private_key: api.key}
audit: {file: none/audit.log}
`

// odx config check reports all problems, not those of the file only, in the order of the
// lines.
func TestConfigCheck(t *testing.T) {
	path := writeConfig(t, withSecrets)
	dir := filepath.Dir(path)
	if err := os.WriteFile(filepath.Join(dir, "api.secret"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := output(t, "config", "check", path)
	want := []string{
		path + ":9: discovery.authentication.users[0].secret_file: open " + dir + "/one.secret: no such file or directory",
		path + ":10: api.secret_file: the secret has 5 bytes; ",
		path + ":11: audit.file: stat " + dir + "/none: no such file or directory; create the directory",
	}
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	for _, w := range want {
		if n := strings.Count(stderr, w); n != 1 {
			t.Errorf("%d times %q in\n%s", n, w, stderr)
		}
	}
	if status != 1 || stdout != "" || len(lines) < len(want) {
		t.Errorf("exit status %d, %q", status, stdout)
	}
	var problems []conf.Problem
	stdout, _, status = output(t, "config", "check", "--config", path, "--json")
	if err := json.Unmarshal([]byte(stdout), &problems); err != nil || status != 1 || len(problems) < 3 || problems[0].Line != 9 {
		t.Errorf("exit status %d, %v: %s", status, err, stdout)
	}

	mistakes := writeConfig(t, strings.Replace(config, "lun: 1", "lun: 0, siez: 5", 1))
	stdout, stderr, status = output(t, "config", "check", "--json", mistakes)
	if err := json.Unmarshal([]byte(stdout), &problems); err != nil || status != 1 || len(problems) != 2 || stderr != "" {
		t.Errorf("exit status %d, %v: %s%s", status, err, stdout, stderr)
	}
	good := writeConfig(t, config)
	if stdout, stderr, status := output(t, "config", "check", good); status != 0 || stdout != good+": no problems\n" || stderr != "" {
		t.Errorf("exit status %d: %q, %q", status, stdout, stderr)
	}
	if stdout, _, status := output(t, "config", "check", "--json", good); status != 0 || stdout != "[]\n" {
		t.Errorf("exit status %d: %q", status, stdout)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(good), "data")); !os.IsNotExist(err) {
		t.Errorf("a check has created the store (%v)", err)
	}
}

// The URLs and secrets of webhooks are checked, too.
func TestConfigCheck_Webhooks(t *testing.T) {
	path := writeConfig(t, config+`alerts:
  - {name: a, url: "https://a.example/(masked)"}
  - {name: b, url: "https://b.example/x", secret_file: none.secret}
`)
	_, stderr, status := output(t, "config", "check", path)
	for _, want := range []string{"alerts[0].url: webhook a: the URL is masked", "alerts[1].secret_file: webhook b: open "} {
		if strings.Count(stderr, want) != 1 || status != 1 {
			t.Errorf("exit status %d, no %q in\n%s", status, want, stderr)
		}
	}
}

// What odx config show prints is a configuration, with absolute paths and without secrets.
func TestConfigShow(t *testing.T) {
	path := writeConfig(t, withSecrets)
	stdout, stderr, status := output(t, "config", "show", path)
	cfg, err := conf.Parse("shown.yaml", []byte(stdout))
	if err != nil || status != 0 || stderr != "" || strings.Contains(stdout, "seen") {
		t.Fatalf("exit status %d, %v: %s%s", status, err, stdout, stderr)
	}
	if cfg.DataDir != filepath.Join(filepath.Dir(path), "data") || cfg.Limits.Sessions != 1024 {
		t.Errorf("%+v", cfg)
	}
	shown := writeConfig(t, stdout)
	if _, stderr, status := output(t, "config", "check", shown); status != 1 || !strings.Contains(stderr, "the secret is masked") {
		t.Errorf("a masked secret: exit status %d: %s", status, stderr)
	}
	var any struct {
		Targets []struct{ LUNs []struct{ Size string } }
	}
	stdout, _, _ = output(t, "config", "show", "--json", path)
	if err := json.Unmarshal([]byte(stdout), &any); err != nil || any.Targets[0].LUNs[1].Size != "64MiB" {
		t.Errorf("%v: %s", err, stdout)
	}
}

func TestConfigSchema(t *testing.T) {
	stdout, _, status := output(t, "config", "schema")
	var schema struct {
		Schema     string         `json:"$schema"`
		Properties map[string]any `json:"properties"`
	}
	if err := json.Unmarshal([]byte(stdout), &schema); err != nil || status != 0 || schema.Schema == "" || schema.Properties["targets"] == nil {
		t.Errorf("exit status %d, %v: %s", status, err, stdout)
	}
}

// Without a server, odx config diff and the other commands that need one say so.
func TestLive_NoServer(t *testing.T) {
	path := writeConfig(t, config)
	for _, args := range []string{"reload", "config diff", "session list", "session end 1", "lun top"} {
		stdout, stderr, status := output(t, append(strings.Fields(args), "--config", path)...)
		want := "odx: no odx serves the store in " + filepath.Join(filepath.Dir(path), "data") + "\n"
		if status != 5 || stdout != "" || stderr != want {
			t.Errorf("odx %s: exit status %d, %q, %q", args, status, stdout, stderr)
		}
	}
}
