package target

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"odx/conf"
	remote "odx/initiator"
	"odx/internal/kit/logs"
)

// guarded is a configuration in which host may use everything, guest sees one LUN under
// another number and cannot write to it, and other initiators see nothing.
const guarded = `
data_dir: data
portals: ["127.0.0.1:0"]
discovery:
  authentication:
    users: [{name: lookup, secret: "the secret of looking"}]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, volume: dst, size: 64MiB}
    authentication:
      users:
        - {name: host, secret_file: host.secret, initiators: ["iqn.2026-11.example:host"]}
        - {name: guest, secret_env: ODX_TEST_GUEST_SECRET}
      mutual: {name: disks, secret: "the secret of the target"}
    access:
      - {initiators: ["iqn.2026-11.example:host"], addresses: [127.0.0.0/8]}
      - initiators: ["iqn.2026-11.example:guest*"]
        luns: [{lun: 1, as: 0, read_only: true}]
      - {initiators: ["iqn.2026-11.example:auditor"], read_only: true}
      - {initiators: ["iqn.2026-11.example:far"], addresses: [192.0.2.0/24]}
`

const (
	hostSecret, guestSecret = "the secret of the host", "the secret of the guest"
	targetSecret            = "the secret of the target"
)

// startGuarded serves guarded and returns the address and the log.
func startGuarded(t *testing.T) (address string, log *logs.Text) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "host.secret"), []byte(hostSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ODX_TEST_GUEST_SECRET", guestSecret)
	s, log := startLogging(t, parse(t, dir, guarded))
	return s.Portals()[0], log
}

func open(t *testing.T, address, name string, lun uint16, login, target remote.Credentials) (*remote.Disk, error) {
	t.Helper()
	return remote.Open(t.Context(), remote.Options{InitiatorName: "iqn.2026-11.example:" + name,
		URL: remote.URL{Address: address, Target: "iqn.2026-11.example.odx:disks", LUN: lun, Login: login, TargetLogin: target}})
}

// TestGuarded: who gets in, how, and what each sees.
func TestGuarded(t *testing.T) {
	address, log := startGuarded(t)
	type who = remote.Credentials
	host, guest, none := who{User: "host", Password: hostSecret}, who{User: "guest", Password: guestSecret}, who{}
	for _, c := range []struct {
		name          string
		lun           uint16
		login, target who
		detail        byte   // of the refusal, class 2; 0: it gets in
		fails         string // what opening the LUN fails with
	}{
		{name: "host", login: host},
		{name: "host", lun: 1, login: host, target: who{User: "disks", Password: targetSecret}},
		{name: "host", login: guest},
		{name: "guest7", login: guest},
		{name: "guest7", lun: 1, login: guest, fails: "no disk at this LUN"},
		{name: "auditor", lun: 1, login: guest},
		{name: "host", login: none, detail: 1},
		{name: "host", login: who{User: "host", Password: guestSecret}, detail: 1},
		{name: "guest", login: host, detail: 1}, // the name is for another initiator
		{name: "stranger", login: guest, detail: 2},
		{name: "far", login: guest, detail: 2},
		{name: "host", login: host, target: who{User: "disks", Password: hostSecret}, fails: "wrong name or secret"},
	} {
		d, err := open(t, address, c.name, c.lun, c.login, c.target)
		var refused *remote.LoginError
		switch {
		case c.detail != 0:
			if !errors.As(err, &refused) || refused.Class != 2 || refused.Detail != c.detail {
				t.Errorf("%+v: %v", c, err)
			}
		case c.fails != "":
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%+v: %v", c, err)
			}
		case err != nil:
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			d.Close()
		}
	}
	for _, secret := range []string{hostSecret, guestSecret, targetSecret} {
		if strings.Contains(log.String(), secret) {
			t.Error("the log shows a secret")
		}
	}
	if !strings.Contains(log.String(), "targets[0].authentication.mutual.secret: the secret is in the configuration") {
		t.Errorf("no warning about the secret in the configuration:\n%s", log.String())
	}
}

// TestGuardedData: what one initiator writes the other reads through its own
// LUN, to which it cannot write, neither by a command nor by a token.
func TestGuardedData(t *testing.T) {
	address, _ := startGuarded(t)
	host, err := open(t, address, "host", 1, remote.Credentials{User: "host", Password: hostSecret}, remote.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	guest, err := open(t, address, "guest", 0, remote.Credentials{User: "guest", Password: guestSecret}, remote.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	ctx := context.Background()
	want, got := bytes.Repeat([]byte("odx!"), 1024), make([]byte, 4096)
	if err := host.WriteAt(ctx, want, 8192); err != nil {
		t.Fatal(err)
	}
	if err := guest.ReadAt(ctx, got, 8192); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the guest reads %.8q, %v", got, err)
	}
	protected := func(what string, err error) {
		t.Helper()
		var sense *remote.SenseError
		if !errors.As(err, &sense) || sense.Key != 7 || sense.ASC != 0x2700 {
			t.Errorf("%s: %v, want DATA PROTECT, WRITE PROTECTED", what, err)
		}
	}
	protected("WRITE", guest.WriteAt(ctx, want, 0))
	protected("WRITE SAME", guest.Zero(ctx, 0, 4096))
	token, n, err := guest.PopulateToken(ctx, 8192, 4096)
	if err != nil || n != 4096 {
		t.Fatalf("POPULATE TOKEN: %d, %v", n, err)
	}
	_, err = guest.WriteUsingToken(ctx, token, 0, 0, 4096)
	protected("WRITE USING TOKEN", err)
	if n, err := host.WriteUsingToken(ctx, token, 0, 0, 4096); err != nil || n != 4096 {
		t.Errorf("the host writes with the token: %d, %v", n, err)
	}
}

// TestSecretProblems: whatever is wrong with a secret is reported with its line,
// and before the store is touched.
func TestSecretProblems(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("open.secret", "a secret of the one", 0o666)
	write("twin.secret", "a secret of the twin\n", 0o600)
	_, err := Start(t.Context(), parse(t, dir, `data_dir: data
portals: ["127.0.0.1:0"]
discovery:
  authentication:
    users: [{name: twin, secret_file: twin.secret}]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: [{lun: 0, volume: src, size: 64MiB}]
    authentication:
      users:
        - {name: one, secret_file: open.secret}
        - {name: two, secret_env: ODX_TEST_NOT_SET}
        - {name: three, secret: short}
        - {name: four, secret_file: none.secret}
      mutual: {name: disks, secret_file: twin.secret}
`), logs.Discard())
	file := filepath.Join(dir, "odx.yaml")
	want := strings.Join([]string{
		file + ":11: targets[0].authentication.users[0].secret_file: " + filepath.Join(dir, "open.secret") + " is world-writable (mode 0666); restrict it with chmod 600",
		file + ":12: targets[0].authentication.users[1].secret_env: environment variable ODX_TEST_NOT_SET is not set",
		file + ":13: targets[0].authentication.users[2].secret: secret of 5 bytes; use 12 to 255",
		file + ":14: targets[0].authentication.users[3].secret_file: open " + filepath.Join(dir, "none.secret") + ": no such file or directory",
		file + ":15: targets[0].authentication.mutual.secret_file: this is also the secret of user twin (discovery.authentication.users[0]), whose holders could impersonate the target: give each direction its own",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	var problems conf.Problems
	if !errors.As(err, &problems) {
		t.Errorf("the error is %T", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the store was made")
	}
}

// TestOpenTargetWarning: a target that anyone can use is named in the log when
// others than this machine reach it.
func TestOpenTargetWarning(t *testing.T) {
	const open = "target open to everyone who can reach a portal"
	for portal, want := range map[string]bool{"127.0.0.1:0": false, "0.0.0.0:0": true} {
		s, log := startLogging(t, parse(t, t.TempDir(), `data_dir: data
portals: ["`+portal+`"]
targets: [{name: iqn.2026-11.example.odx:disks, luns: [{lun: 0, volume: src, size: 64MiB}]}]
`))
		stop(t, s)
		if got := strings.Contains(log.String(), open); got != want {
			t.Errorf("%s: warned: %v", portal, got)
		}
	}
}

// TestUnboundUserWarning: users that may claim any initiator name are named at
// start, with their line; those that only look for targets are not.
func TestUnboundUserWarning(t *testing.T) {
	s, log := startLogging(t, parse(t, t.TempDir(), `data_dir: data
portals: ["127.0.0.1:0"]
discovery: {authentication: {users: [{name: lookup, secret: "the secret of looking"}]}}
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: [{lun: 0, volume: src, size: 64MiB}]
    authentication:
      users:
        - {name: bound, secret: "the secret of bound", initiators: ["iqn.2026-11.example:host"]}
        - {name: site, secret: "the secret of the site", initiators: ["iqn.2026-11.example:*"]}
        - {name: free, secret: "the secret of free"}
        - {name: all, secret: "the secret of all", initiators: ["*"]}
`))
	stop(t, s)
	const warning = "may log in under the name of any initiator"
	for key, want := range map[string]bool{
		"odx.yaml:3: discovery.authentication.users[0]:":   false,
		"odx.yaml:9: targets[0].authentication.users[0]:":  false,
		"odx.yaml:10: targets[0].authentication.users[1]:": false,
		"odx.yaml:11: targets[0].authentication.users[2]:": true,
		"odx.yaml:12: targets[0].authentication.users[3]:": true,
	} {
		got := false
		for line := range strings.Lines(log.String()) {
			got = got || strings.Contains(line, key) && strings.Contains(line, warning)
		}
		if got != want {
			t.Errorf("%s warned: %v, want %v\n%s", key, got, want, log.String())
		}
	}
}
