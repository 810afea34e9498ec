//go:build e2e

package clients

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

const (
	hostSecret, targetSecret = "SecretOfTheHost", "SecretOfTheTarget"
	host, otherInitiator     = "iqn.2026-11.example:host", "iqn.2026-11.example:other"
)

// guarded asks for CHAP everywhere, and lets one initiator in, which sees the
// second LUN as LUN 5, write protected, and the first not at all.
var guarded = kit.Settings{
	Target: map[string]any{
		"authentication": authentication,
		"access": []any{map[string]any{"initiators": []string{host},
			"luns": []any{map[string]any{"lun": 1, "as": 5, "read_only": true}}}},
	},
	File: map[string]any{"discovery": map[string]any{"authentication": authentication}},
}

var authentication = map[string]any{
	"users":  []any{map[string]any{"name": "host", "secret": hostSecret}},
	"mutual": map[string]any{"name": "target", "secret": targetSecret},
}

// run runs a program and returns what it says, and whether it ended well.
func run(t *testing.T, program string, args ...string) (said string, ok bool) {
	t.Helper()
	path := harness.Program(t, program, "libiscsi-bin")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %q does not end: %s", program, args, out.String())
	}
	return out.String(), err == nil
}

// TestCHAP logs in to a LUN with iscsi-inq: with the right secrets, without
// secrets, and with wrong ones.
func TestCHAP(t *testing.T) {
	target := harness.ServeWith(t, guarded, kit.LUN{Size: 64 << 20}, kit.LUN{Size: 64 << 20})
	url := func(login, lun, query string) string {
		return "iscsi://" + login + target.Portal + "/" + target.IQN + "/" + lun + query
	}
	const good = "host%" + hostSecret + "@"
	for _, c := range []struct {
		what, name, url string
		ok              bool
		says            string
	}{
		{"one way", host, url(good, "5", ""), true, "Peripheral Device Type:DIRECT_ACCESS"},
		{"mutual", host, url(good, "5", "?target_user=target&target_password="+targetSecret), true, "Peripheral Device Type:DIRECT_ACCESS"},
		{"mutual, another secret", host, url(good, "5", "?target_user=target&target_password=SecretOfAnother1"), false, ""},
		{"no secret", host, url("", "5", ""), false, "Authentication failure"},
		{"wrong secret", host, url("host%WrongSecretWrong@", "5", ""), false, "Authentication failure"},
		{"unknown user", host, url("absent-user%"+hostSecret+"@", "5", ""), false, "Authentication failure"},
		{"another initiator", otherInitiator, url(good, "5", ""), false, "Authorization failure"},
		{"a LUN that is not seen", host, url(good, "0", ""), false, "LOGICAL_UNIT_NOT_SUPPORTED"},
	} {
		said, ok := run(t, "iscsi-inq", "-i", c.name, c.url)
		if ok != c.ok || !strings.Contains(said, c.says) {
			t.Errorf("%s: ended well: %v; want %v and %q:\n%s", c.what, ok, c.ok, c.says, said)
		}
	}
	harness.Logged(t, target, "wrong secret", "absent-user", otherInitiator, "from=\"127.0.0.1:")
	log := target.Log()
	for _, secret := range []string{hostSecret, targetSecret} {
		if strings.Contains(log, secret) {
			t.Errorf("the log shows the secret %s", secret)
		}
	}
}

// TestCHAP_Discovery lists targets and LUNs with iscsi-ls, which authenticates in
// discovery and at the target.
func TestCHAP_Discovery(t *testing.T) {
	target := harness.ServeWith(t, guarded, kit.LUN{Size: 64 << 20}, kit.LUN{Size: 128 << 20})
	const good = "host%" + hostSecret + "@"
	said, ok := run(t, "iscsi-ls", "-s", "-i", host, "iscsi://"+good+target.Portal)
	if !ok || !strings.Contains(said, "Target:"+target.IQN) || !strings.Contains(said, "Lun:5 ") || strings.Contains(said, "Lun:0 ") {
		t.Errorf("iscsi-ls -s as the host:\n%s", said)
	}
	if said, ok := run(t, "iscsi-ls", "-i", otherInitiator, "iscsi://"+good+target.Portal); !ok || strings.Contains(said, target.IQN) {
		t.Errorf("iscsi-ls of another initiator:\n%s", said)
	}
	for _, login := range []string{"", "host%WrongSecretWrong@"} {
		if said, ok := run(t, "iscsi-ls", "-i", host, "iscsi://"+login+target.Portal); ok || strings.Contains(said, target.IQN) {
			t.Errorf("iscsi-ls with %q:\n%s", login, said)
		}
	}
}
