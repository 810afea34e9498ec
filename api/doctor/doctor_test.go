package doctor_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"odx/api/doctor"
	"odx/conf"
	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "iqn.2026-11.example.odx:disks"

// start starts a server with targets, and returns it with a function from LUN to URL.
func start(t *testing.T, targets string) (*target.Service, func(lun uint16) initiator.URL) {
	t.Helper()
	cfg, err := conf.Parse("odx.yaml", fmt.Appendf(nil, "data_dir: %s\nportals: [\"127.0.0.1:0\"]\n%s", t.TempDir(), targets))
	must.Succeed(t, err)
	s, err := target.Start(t.Context(), cfg, logs.Discard())
	must.Succeed(t, err)
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, func(lun uint16) initiator.URL {
		return initiator.URL{Address: s.Portals()[0], Target: name, LUN: lun}
	}
}

// serve starts a server with two LUNs, with the options dst for LUN 1.
func serve(t *testing.T, dst string) (*target.Service, func(lun uint16) initiator.URL) {
	t.Helper()
	return start(t, fmt.Sprintf(`
targets:
  - name: %s
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, volume: dst, size: 64MiB%s}
`, name, dst))
}

// examine returns the findings as lines. Those that are not OK begin with NOT.
func examine(t *testing.T, p doctor.Pair) (lines []string, ok bool) {
	t.Helper()
	ok, err := doctor.Examine(t.Context(), p, func(f doctor.Finding) {
		mark := ""
		if !f.OK {
			mark = "NOT "
		}
		if (f.Advice == "") != f.OK {
			t.Errorf("advice %q for %+v", f.Advice, f)
		}
		lines = append(lines, mark+f.Check+": "+f.Detail)
	})
	if err != nil {
		t.Error(err)
	}
	return lines, ok
}

func TestExamine(t *testing.T) {
	s, here := serve(t, "")
	_, elsewhere := serve(t, "")
	_, readOnly := serve(t, ", read_only: true")
	src, err := s.Admin().Backstore().Volume("src")
	if err != nil {
		t.Fatal(err)
	}
	if err := src.WriteAt(t.Context(), bytes.Repeat([]byte("data"), 1<<18), 0); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		pair doctor.Pair
		ok   bool
		last string // the last finding
	}{
		"one store":          {doctor.Pair{Source: here(0), Destination: here(1)}, true, "use the token at the destination (WRITE USING TOKEN of 0 blocks): accepted"},
		"one store, written": {doctor.Pair{Source: here(0), Destination: here(1), ScratchOffset: 8 << 20, ScratchLength: 2 << 20}, true, "reject a forged token: rejected"},
		"two stores":         {doctor.Pair{Source: here(0), Destination: elsewhere(1), ScratchLength: 1 << 20}, false, "reject a forged token: rejected"},
		"no such LUN":        {doctor.Pair{Source: here(0), Destination: here(5)}, false, "NOT log in: " + here(5).String() + ": there is no disk at this LUN"},
		"read-only":          {doctor.Pair{Source: readOnly(0), Destination: readOnly(1)}, false, "NOT use the token at the destination (WRITE USING TOKEN of 0 blocks): WRITE USING TOKEN: the logical unit answered DATA PROTECT, 27/00"},
	} {
		lines, ok := examine(t, tt.pair)
		if ok != tt.ok || len(lines) == 0 || !strings.HasPrefix(lines[len(lines)-1], tt.last) {
			t.Errorf("%s: %v\n%s", name, ok, strings.Join(lines, "\n"))
		}
	}
	dst, err := s.Admin().Backstore().Volume("dst")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if err := dst.ReadAt(t.Context(), got, 8<<20); err != nil || string(got) != "data" {
		t.Errorf("the scratch range is %q (%v)", got, err)
	}
	if err := dst.ReadAt(t.Context(), got, 0); err != nil || string(got) != "\x00\x00\x00\x00" {
		t.Errorf("data outside the scratch range is %q (%v)", got, err)
	}
}
