package main

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "odx/api/v1"
)

// What was refused to an initiator is there for an administrator to see, with the
// reason.
func TestTokenStats(t *testing.T) {
	path := writeConfig(t, config)
	here := "iscsi://" + startServer(t, odx("serve", "--config", path)).portal + "/iqn.2026-11.example.odx:disks/"
	stats := func() (s v1.CopyStats) {
		t.Helper()
		stdout, stderr, status := output(t, "token", "stats", "--json", "--config", path)
		if err := json.Unmarshal([]byte(stdout), &s); err != nil || status != 0 {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		return s
	}
	if s := stats(); s.Commands.Refused != 0 || s.Commands.Since.IsZero() || s.Tokens.Created != 0 {
		t.Errorf("in the beginning: %+v", s)
	}
	if _, _, status := output(t, "copy", here+"0", here+"1"); status == 0 {
		t.Fatal("copied to a LUN that is read-only")
	}
	s := stats()
	if s.Commands.Populated != 1 || s.Commands.PopulatedBytes != 64<<20 || s.Commands.Refused != 1 || s.Commands.RefusedBy["27h/00h"] != 1 || s.Tokens.Created != 1 {
		t.Errorf("%+v", s)
	}
	if len(s.Commands.Recent) != 1 || s.Commands.Recent[0].Command != "WRITE USING TOKEN" || s.Commands.Recent[0].Volume != "dst" {
		t.Errorf("%+v", s.Commands.Recent)
	}
	stdout, _, _ := output(t, "token", "stats", "--config", path)
	for _, line := range []string{
		"POPULATE TOKEN     1  64 MiB represented, 0 B of them moved\n",
		"refused            1  copy commands\n  27h/00h          1  \n",
		"WRITE USING TOKEN  iqn.", "dst     DATA PROTECT, 27h/00h  DATA PROTECT, ASC/ASCQ 27h/00h\n",
	} {
		if !strings.Contains(stdout, line) {
			t.Errorf("no %q in\n%s", line, stdout)
		}
	}
}

func TestTokenStatsWithoutServer(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path)) // makes the store
	s.stop(t)
	script(t, path, []command{{args: "token stats", stderr: "odx: no odx serves this store: the counters are those of a server\n", status: 5}})
}
