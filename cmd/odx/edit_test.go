package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	v1 "odx/api/v1"
	"odx/conf"
	"odx/owner"
)

const onlyFile = "no odx serves the store: only PATH was changed, which applies at the next start\n"

// Without a server, the commands change the file, whose comments stay, and say so.
func TestEdit_NoServer(t *testing.T) {
	const disks = "iqn.2026-11.example.odx:disks"
	path := writeConfig(t, "# a comment\n"+config)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "u.secret"), []byte("a secret of a user"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []command{
		{args: "target create " + disks + "2 golden --size 1GiB --lun 3 --portal-group 1", stdout: "target " + disks + "2: created, with LUN 3 on volume golden\n" + onlyFile},
		{args: "target create " + disks + " golden", stderr: "odx: target " + disks + " exists already\n", status: 1},
		{args: "target delete " + disks + "3", stderr: "odx: target " + disks + "3 does not exist\n", status: 1},
		{args: "lun add " + disks + " more --size 1GiB --iops 500 --bytes-per-s 10MiB", stdout: "LUN 2 of target " + disks + ": added, on volume more\n" + onlyFile},
		{args: "lun add " + disks + " file:x.vhdx --lun 9 --read-only", stdout: "LUN 9 of target " + disks + ": added, on file:x.vhdx\n" + onlyFile},
		{args: "lun add " + disks + " again --lun 9", stderr: "odx: LUN 9 of target " + disks + " exists already\n", status: 1},
		{args: "lun add " + disks + " src --lun 10", stderr: "PATH (changed):11: targets[0].luns[4]: LUN 10: volume src already is LUN 0 of this target (line 7); remove one\n", status: 1},
		{args: "lun remove " + disks + " 9", stdout: "LUN 9 of target " + disks + ": removed\n" + onlyFile},
		{args: "lun remove " + disks + " 9", stderr: "odx: LUN 9 of target " + disks + " does not exist\n", status: 1},
		{args: "lun list " + disks, stdout: "TARGET                         LUN  MEDIUM       SIZE   BLOCK  ACCESS      LIMIT\n" +
			disks + "  0    volume src   64MiB  512    read-write  -\n" +
			disks + "  1    volume dst   64MiB  512    read-only   -\n" +
			disks + "  2    volume more  1GiB   512    read-write  500/s, 10MiB/s\n"},
		{args: "user add " + disks + " u --secret-file DIR/u.secret --initiator iqn.2026-11.example:*", stdout: "user u of target " + disks + ": added\n" + onlyFile},
		{args: "user add " + disks + " v --secret-file DIR/none", stderr: "PATH (changed):13: targets[0].authentication.users[1].secret_file: open DIR/none: no such file or directory\n", status: 1},
		{args: "user remove " + disks + " u", stderr: "PATH:12: user u is the last one of target " + disks + "; to admit all initiators without authentication, remove authentication from the file\n", status: 1},
		{args: "user set " + disks + " u --initiator ", stdout: "user u of target " + disks + ": changed\n" + onlyFile},
		{args: "user list " + disks, stdout: "TARGET                         USER  SECRET             INITIATORS\n" + disks + "  u     file DIR/u.secret  all\n"},
		{args: "access add " + disks + " --initiator iqn.2026-11.example:a --lun 2=0:ro --lun 0=1", stdout: "access to target " + disks + ": added for initiators iqn.2026-11.example:a\n" + onlyFile},
		{args: "access add " + disks + " --address 192.0.2.0/24,192.0.2.7 --read-only --at 0", stdout: "access to target " + disks + ": added for initiators from 192.0.2.0/24 192.0.2.7\n" + onlyFile},
		{args: "access list", stdout: "TARGET                          ENTRY  INITIATORS             ADDRESSES                  LUNS        ACCESS\n" +
			disks + "   0      all                    192.0.2.0/24 192.0.2.7     all         read-only\n" +
			disks + "   1      iqn.2026-11.example:a  all                        2=0:ro 0=1  read-write\n" +
			disks + "2  -      all                    all                        all         read-write\n"},
		{args: "access remove " + disks + " 0", stdout: "access to target " + disks + ": entry 0 removed\n" + onlyFile},
		{args: "access remove " + disks + " 1", stderr: "odx: entry 1 of the access list of target " + disks + " does not exist\n", status: 1},
		{args: "lun remove " + disks + " 2", stderr: "PATH (changed):15: targets[0].access[0].luns[0].lun: the target has no LUN 2\n", status: 1},
		{args: "target delete " + disks + "2", stdout: "target " + disks + "2: deleted\n" + onlyFile},
	} {
		in := func(text string) string {
			return strings.ReplaceAll(strings.ReplaceAll(text, "PATH", path), "DIR", filepath.Dir(path))
		}
		args := strings.Split(in(c.args), " ")
		stdout, stderr, status := output(t, append(args, "--config", path)...)
		if squeeze(stdout) != squeeze(in(c.stdout)) || stderr != in(c.stderr) || status != c.status {
			t.Errorf("odx %s: exit status %d\n%s%swant\n%s%s", c.args, status, stdout, stderr, in(c.stdout), in(c.stderr))
		}
	}
	want := "# a comment\n" + strings.Replace(config, "read_only: true}\n", `read_only: true}
      - {lun: 2, volume: more, size: 1GiB, qos: {iops: 500, bytes_per_s: 10MiB}}
    authentication:
      users:
        - {name: u, secret_file: `+filepath.Dir(path)+`/u.secret}
    access:
      - initiators: ["iqn.2026-11.example:a"]
        luns:
          - {lun: 2, as: 0, read_only: true}
          - {lun: 0, as: 1}
`, 1)
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("the file is (%v)\n%swant\n%s", err, got, want)
	}
}

var spaces = regexp.MustCompile(` +`)

// squeeze returns a text without the widths of its columns.
func squeeze(text string) string { return spaces.ReplaceAllString(text, " ") }

// A secret comes from a file or standard input into a file that only some can read.
func TestUserAdd_Secret(t *testing.T) {
	const disks, secret = "iqn.2026-11.example.odx:disks", "what must not be seen"
	path := writeConfig(t, config)
	add := []string{"user", "add", disks, "u", "--secret-from", "-", "--config", path}
	stdout, stderr, status := input(t, []byte(secret+"\n"), add...)
	if want := "is world-readable (mode 0644)"; status != 1 || !strings.Contains(stderr, want) || strings.Contains(stdout+stderr, secret) {
		t.Errorf("exit status %d: %s%s, want %s", status, stdout, stderr, want)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"": "it is empty", " a": "white space", "a\nb": "more than one line", strings.Repeat("a", 2000): "more than one line"} {
		if _, stderr, status := input(t, []byte(in), add...); status != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%.10q: exit status %d: %s", in, status, stderr)
		}
	}
	stdout, stderr, status = input(t, []byte(secret+"\r\n"), add...)
	if status != 0 || strings.Contains(stdout+stderr, secret) {
		t.Fatalf("exit status %d: %s%s", status, stdout, stderr)
	}
	cfg, err := conf.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := cfg.Targets[0].Authentication.Users[0].Secret.Read(); err != nil || string(got) != secret {
		t.Errorf("the secret is %q (%v)", got, err)
	}
	stdout, _, _ = output(t, "user", "list", "--json", "--config", path)
	var users map[string][]v1.User
	if err := json.Unmarshal([]byte(stdout), &users); err != nil || len(users[disks]) != 1 || strings.Contains(stdout, secret) {
		t.Errorf("%v: %s", err, stdout)
	}
}

// A process that owns the store and does not answer, because it starts for example, has
// read the file: to change the file alone would be wrong.
func TestEdit_Owned(t *testing.T) {
	path := writeConfig(t, config)
	data := filepath.Join(filepath.Dir(path), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	claim, err := owner.Directory(data).Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	remove := []string{"lun", "remove", "iqn.2026-11.example.odx:disks", "1", "--config", path}
	want := "odx: a process has the store in " + data + ", and does not answer: "
	if _, stderr, status := output(t, remove...); status != 1 || !strings.HasPrefix(stderr, want) {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != config {
		t.Errorf("the file is %q (%v)", text, err)
	}
	if err := claim.Release(); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := output(t, remove...); status != 0 || !strings.Contains(stdout, "only "+path+" was changed") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
}

// A file that cannot be replaced stays as it is.
func TestEdit_ReadOnly(t *testing.T) {
	path := writeConfig(t, config)
	cmd := readOnlyFS(t, filepath.Dir(path), odx("lun", "remove", "iqn.2026-11.example.odx:disks", "1", "--config", path))
	out, err := cmd.CombinedOutput()
	if want := "odx: replace " + path + ": configuration is read-only: "; err == nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v: %s", err, out)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != config {
		t.Errorf("the file is %q (%v)", text, err)
	}
}
