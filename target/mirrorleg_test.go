package target

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"odx/offload/view"
)

// copyFile writes the bytes of a file into another one, which stays the same file.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	p, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMirrorLeg_OlderCopy: an older copy of a plain file that lies in its place is
// found out, warned about, and synced; whichever leg it is, however it got there, and
// with views between it and the mirror.
func TestMirrorLeg_OlderCopy(t *testing.T) {
	const two = `[{name: m, mirror: {legs: ["backing:a.img", "backing:b.img"]}, size: 4MiB}]`
	for name, tt := range map[string]struct {
		views    string
		replaced string
		hot      bool // the copy is made while the mirror is served, later than the last write
	}{
		"first leg":            {views: two, replaced: "a.img"},
		"second leg":           {views: two, replaced: "b.img"},
		"first leg, hot copy":  {views: two, replaced: "a.img", hot: true},
		"leg next to a volume": {views: `[{name: m, mirror: {legs: ["backing:a.img", vol]}, size: 4MiB}]`, replaced: "a.img"},
		"leg under a cache": {views: `[{name: c, cache: {of: "backing:a.img"}, size: 4MiB}, {name: m, mirror: {legs: [c, "backing:b.img"]}, size: 4MiB}]`,
			replaced: "a.img"},
		"leg in a stripe": {views: `[{name: s, stripe: {legs: ["backing:a.img", "backing:c.img"]}, size: 2MiB}, {name: m, mirror: {legs: [s, "backing:b.img"]}, size: 4MiB}]`,
			replaced: "c.img"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := parse(t, dir, `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - {name: iqn.2026-11.example.odx:disks, luns: [{lun: 0, view: m}]}
views: `+tt.views+"\n")
			path, kept := filepath.Join(dir, tt.replaced), filepath.Join(dir, "kept")
			older, newer := random(1, 1<<20), random(2, 1<<20)
			write := func(s *Service, p []byte) {
				t.Helper()
				if err := login(t, s, 0).WriteAt(t.Context(), p, 4096); err != nil {
					t.Fatal(err)
				}
			}
			s := start(t, cfg)
			write(s, older)
			stop(t, s)
			copyFile(t, path, kept)
			s = start(t, cfg)
			if tt.hot {
				copyFile(t, path, kept)
			}
			write(s, newer)
			stop(t, s)
			copyFile(t, kept, path)
			s, log := startLogging(t, cfg)
			if got := read(t, login(t, s, 0), 4096, len(newer)); !bytes.Equal(got, newer) {
				t.Errorf("older data is read: %v", bytes.Equal(got, older))
			}
			if !strings.Contains(log.String(), "perhaps an older copy") {
				t.Error("no warning")
			}
			m := s.state.Load().views.devices["m"].(*view.Mirror)
			if err := m.Resync(t.Context()); err != nil || len(m.InSync()) != 2 {
				t.Errorf("resync: %v; in sync: %v", err, m.InSync())
			}
			stop(t, s)
			// And once more, with nothing replaced.
			s, log = startLogging(t, cfg)
			m = s.state.Load().views.devices["m"].(*view.Mirror)
			if len(m.InSync()) != 2 || strings.Contains(log.String(), "leg of the mirror") {
				t.Errorf("after an ordinary restart: in sync %v; %v", m.InSync(), log.String())
			}
			stop(t, s)
		})
	}
}
