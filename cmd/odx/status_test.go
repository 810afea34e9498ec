package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"odx/admin"
	"odx/backstore"
	"odx/internal/kit/must"
)

// TestStatus: the exit status is that of the health, and with --ready that of readiness.
func TestStatus(t *testing.T) {
	missing := strings.Replace(config, "volume: dst, size: 64MiB", "volume: dst", 1) // is not created
	for name, tt := range map[string]struct {
		config        string
		status, ready int
		want          []string
	}{
		"healthy":      {config, 0, 0, []string{"health  ok ", "store ", " free", "portal  127.0.0.1:"}},
		"LUN left out": {missing, 1, 0, []string{"health    degraded", "critical  lun_not_served  1 of 2 LUNs are not served", "NOT SERVED"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeConfig(t, tt.config)
			defer startServer(t, odx("serve", "--config", path)).stop(t)
			out, complaint, status := output(t, "status", "--config", path)
			if status != tt.status || complaint != "" {
				t.Errorf("exit status %d: %s", status, complaint)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if _, complaint, status := output(t, "status", "--ready", "--config", path); status != tt.ready || complaint != "" {
				t.Errorf("--ready: exit status %d: %s", status, complaint)
			}
		})
	}
}

// TestStatus_NoServer: nothing is opened or created where no server is, which could start in
// the meantime.
func TestStatus_NoServer(t *testing.T) {
	path := writeConfig(t, config)
	for _, args := range [][]string{{"status"}, {"status", "--ready"}, {"status", "--json"}} {
		out, complaint, status := output(t, append(args, "--config", path)...)
		if status != 5 || out != "" || complaint != "odx: no odx serves the store in "+filepath.Join(filepath.Dir(path), "data")+"\n" {
			t.Errorf("%v: exit status %d, %q, %q", args, status, out, complaint)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "data")); !os.IsNotExist(err) {
		t.Errorf("the directory of the store: %v", err)
	}
}

// TestVerdict: damage has an exit status of its own.
func TestVerdict(t *testing.T) {
	good := admin.Status{Portals: []string{"127.0.0.1:3260"}, Vitals: admin.Vitals{FreeBytes: 1 << 30}}
	damaged, failing := good, good
	damaged.Damage = []backstore.Damaged{{What: "volume src"}}
	failing.Vitals.StoreFailure = "half done"
	for _, tt := range []struct {
		name           string
		status         *admin.Status
		verdict, ready error
	}{
		{"good", &good, nil, nil}, {"damaged", &damaged, statusDamage, nil}, {"failing", &failing, statusFailed, statusFailed},
	} {
		if v, r := verdict(tt.status), readiness(tt.status); !errors.Is(v, tt.verdict) || !errors.Is(r, tt.ready) {
			t.Errorf("%s: %v, ready %v", tt.name, v, r)
		}
	}
}

// TestPrintStatus_Screen: a server with much of everything fits on a screen, with what is
// wrong first.
func TestPrintStatus_Screen(t *testing.T) {
	st := admin.Status{Portals: []string{"127.0.0.1:3260"}, MoreDamage: 900}
	for i := range 1000 {
		st.LUNs = append(st.LUNs, admin.LUNStatus{Target: "iqn.a", Number: uint16(i), Medium: "volume v"})
		st.Sessions = append(st.Sessions, admin.Session{Initiator: fmt.Sprintf("iqn.host%d", i)})
	}
	st.LUNs[999].Problem = "the volume is damaged"
	for range 100 {
		st.Damage = append(st.Damage, backstore.Damaged{What: "volume v", Error: "checksum mismatch"})
	}
	var out bytes.Buffer
	must.Succeed(t, printStatus(&out, &st))
	if n := strings.Count(out.String(), "\n"); n > 50 {
		t.Errorf("%d lines:\n%s", n, &out)
	}
	for _, want := range []string{"iqn.a/999", "980 more", "990 more", "995 more"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
