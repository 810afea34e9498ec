//go:build e2e

package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "odx/api/v1"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// commander runs commands of odx on the configuration of a target.
type commander struct {
	binary, config string
}

func newCommander(t *testing.T, target *kit.Target) *commander {
	t.Helper()
	binary, err := kit.Binary()
	harness.Must(t, err)
	return &commander{binary, target.ConfigFile()}
}

// run runs a command that has to succeed, and returns its standard output.
func (c *commander) run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.binary, append(args, "--config", c.config)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("odx %q: %v: %s%s", args, err, &out, &errs)
	}
	return out.String()
}

// TestCommands_LUN adds and removes a LUN while qemu-io writes and verifies another one of
// the same target. iscsi-ls finds what is there at each time.
func TestCommands_LUN(t *testing.T) {
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	harness.RequireODX(t)
	odx := newCommander(t, target)
	ctx, cancel := context.WithTimeout(t.Context(), 5*limit)
	defer cancel()
	working, stop := context.WithCancel(ctx)
	defer stop()
	q := startQemuIO(ctx, t, target, host)
	defer q.close()
	v := verify(working, q, partsOf(1)[0], 4)
	listed := func() bool {
		t.Helper()
		said, ok := run(t, "iscsi-ls", "-s", "-i", otherInitiator, target.PortalURL())
		if !ok || !strings.Contains(said, "Lun:0 ") {
			t.Errorf("iscsi-ls -s:\n%s", said)
		}
		return strings.Contains(said, "Lun:7 ")
	}
	const rounds = 5
	for i := range rounds {
		odx.run(t, "lun", "add", target.IQN, "more", "--lun", "7", "--size", "64MiB")
		if !listed() {
			t.Errorf("round %d: LUN 7 is not there", i)
		}
		<-v.rounds
		odx.run(t, "lun", "remove", target.IQN, "7")
		if listed() {
			t.Errorf("round %d: LUN 7 is there", i)
		}
		if _, ok := <-v.rounds; !ok {
			break
		}
	}
	var sessions []v1.Session
	harness.Must(t, json.Unmarshal([]byte(odx.run(t, "session", "list", "--json")), &sessions))
	if len(sessions) != 1 || sessions[0].Initiator != host || len(sessions[0].LUNs) != 1 {
		t.Errorf("sessions: %+v", sessions)
	}
	if top := odx.run(t, "lun", "top"); !strings.Contains(top, target.IQN+"/0") {
		t.Errorf("odx lun top:\n%s", top)
	}
	stop()
	for range v.rounds {
	}
	if v.err != nil {
		t.Errorf("qemu-io: %v", v.err)
	}
	// It reports each REPORTED LUNS DATA HAS CHANGED, and sends its command again.
	for _, complaint := range v.complaints {
		if !strings.Contains(complaint, "(0x3f0e)") {
			t.Errorf("qemu-io: %s", complaint)
		}
	}
	if n := len(v.complaints); n == 0 || n > 2*rounds {
		t.Errorf("%d unit attentions for %d changes", n, 2*rounds)
	}
}

// TestCommands_Access rotates a secret, and changes who may use a target: the next login
// sees it.
func TestCommands_Access(t *testing.T) {
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	harness.RequireODX(t)
	odx := newCommander(t, target)
	secret := filepath.Join(target.Dir, "host.secret")
	const other = "AnotherSecretOf1"
	harness.Must(t, os.WriteFile(secret, []byte(hostSecret), 0o600))
	login := func(name, secret string) bool {
		t.Helper()
		user := ""
		if secret != "" {
			user = "host%" + secret + "@"
		}
		_, ok := run(t, "iscsi-inq", "-i", name, "iscsi://"+user+target.Portal+"/"+target.IQN+"/0")
		return ok
	}
	expect := func(when string, want map[[2]string]bool) {
		t.Helper()
		for who, ok := range want {
			if login(who[0], who[1]) != ok {
				t.Errorf("%s: login of %s with %q: want %t", when, who[0], who[1], ok)
			}
		}
	}
	expect("at first", map[[2]string]bool{{host, ""}: true, {otherInitiator, ""}: true})
	odx.run(t, "user", "add", target.IQN, "host", "--secret-file", secret)
	expect("with a user", map[[2]string]bool{{host, ""}: false, {host, hostSecret}: true, {host, other}: false})
	harness.Must(t, os.WriteFile(secret, []byte(other), 0o600))
	expect("before the reload", map[[2]string]bool{{host, hostSecret}: true, {host, other}: false})
	odx.run(t, "reload")
	expect("with another secret", map[[2]string]bool{{host, hostSecret}: false, {host, other}: true})
	odx.run(t, "user", "set", target.IQN, "host", "--initiator", host)
	expect("with a bound user", map[[2]string]bool{{host, other}: true, {otherInitiator, other}: false})
	odx.run(t, "user", "set", target.IQN, "host", "--initiator", "")
	odx.run(t, "access", "add", target.IQN, "--initiator", otherInitiator)
	expect("with an access list", map[[2]string]bool{{host, other}: false, {otherInitiator, other}: true})
	odx.run(t, "access", "add", target.IQN, "--initiator", host, "--at", "0")
	odx.run(t, "access", "remove", target.IQN, "1")
	expect("with another entry", map[[2]string]bool{{host, other}: true, {otherInitiator, other}: false})
}

// TestCommands_SessionEnd: qemu logs in again by itself after its session was ended, and
// loses nothing.
func TestCommands_SessionEnd(t *testing.T) {
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	harness.RequireODX(t)
	odx := newCommander(t, target)
	ctx, cancel := context.WithTimeout(t.Context(), 5*limit)
	defer cancel()
	q := startQemuIO(ctx, t, target, host)
	defer q.close()
	session := func() (s v1.Session) {
		t.Helper()
		var list []v1.Session
		harness.Must(t, json.Unmarshal([]byte(odx.run(t, "session", "list", "--json")), &list))
		if len(list) > 0 {
			s = list[0]
		}
		return s
	}
	if said, err := q.do("write -P 7 0 65536"); err != nil || !strings.Contains(said, "wrote 65536") {
		t.Fatalf("%v: %s", err, said)
	}
	before := session()
	odx.run(t, "session", "end", fmt.Sprint(before.TSIH))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for session().TSIH == before.TSIH {
		select {
		case <-ctx.Done():
			t.Fatal("the session does not end")
		case <-tick.C:
		}
		if _, err := q.do("read 0 4096"); err != nil { // qemu looks at its socket only when it works
			t.Fatal(err)
		}
	}
	if said, err := q.do("read -P 7 0 65536"); err != nil || !strings.Contains(said, "read 65536") {
		t.Errorf("%v: %s", err, said)
	}
}
