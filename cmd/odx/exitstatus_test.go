package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"odx/admin"
	"odx/api/transfer"
)

func TestStatusOf(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want exitStatus
	}{
		"any error":             {errors.New("no"), 1},
		"usage":                 {usagef("no"), 2},
		"damage":                {fmt.Errorf("check: %w", damagef("torn")), 3},
		"not offloaded":         {fmt.Errorf("copy: %w", transfer.ErrNotOffloaded), 4},
		"not offloaded, doctor": {errNotOffloaded, 4},
		"no server":             {fmt.Errorf("status: %w", admin.ErrNotRunning), 5},
		"no server of a store":  {&noServerError{"data"}, 5},
		"nothing listens":       {fmt.Errorf("login: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}), 5},
		"a connection breaks":   {&net.OpError{Op: "read", Err: errors.New("reset")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := statusOf(tt.err); got != tt.want {
				t.Errorf("exit status %d, want %d", got, tt.want)
			}
		})
	}
}

// TestExitStatus_RequireOffload: a copy that is not offloaded succeeds, unless it has to be.
func TestExitStatus_RequireOffload(t *testing.T) {
	path := writeConfig(t, strings.Replace(config, ", read_only: true", "", 1))
	s := startServer(t, odx("serve", "--config", path))
	defer s.stop(t)
	local := t.TempDir() + "/src.raw"
	for _, tt := range []struct {
		args   string
		status int
		stderr string
	}{
		{"copy src dst --require-offload", 0, ""},
		{"copy src " + local, 0, ""},
		{"copy src " + local + ".2 --require-offload", 4, "not offloaded: the destination takes no tokens"},
		{"copy src - --require-offload", 2, "a stream"},
		{"copy src dst --require-offload --no-token", 2, "no-token require-offload"},
		{"copy src iscsi://127.0.0.1:1/iqn.2026-11.example.odx:disks/0", 5, "connection refused"},
		{"status --api http://127.0.0.1:1 --api-secret " + local, 1, ""}, // no secret
	} {
		args := strings.Fields(tt.args)
		if !strings.Contains(tt.args, "--api ") {
			args = append(args, "--config", path)
		}
		_, stderr, status := output(t, args...)
		if status != tt.status || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("odx %s: exit status %d, want %d: %s", tt.args, status, tt.status, stderr)
		}
	}
}
