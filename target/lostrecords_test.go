package target

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/tokens"
)

const recordsConfig = `
data_dir: data
portals: ["127.0.0.1:0"]
views:
  - {name: m, mirror: {legs: [x, y]}}
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: a, size: 1MiB}
      - {lun: 1, volume: b, size: 1MiB}
      - {lun: 2, view: m}
`

// loseRecord damages both copies of the record with a prefix, and no other one, in the
// store of a server that was stopped. It returns the key.
func loseRecord(t *testing.T, dir, prefix string) []byte {
	t.Helper()
	o := backstore.Options{Dir: dir, Log: logs.Discard()}
	s, err := backstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var key, value []byte
	err = s.ScanRecords([]byte(prefix), func(k, v []byte) error {
		key, value = k, v
		return nil
	})
	if err != nil || key == nil {
		t.Fatalf("no record %s: %v", prefix, err)
	}
	// Long neighbours leave it alone in its table.
	before := bytes.Clone(key)
	before[len(before)-1]--
	filler := make([]byte, 1<<16)
	err = s.PutRecords(t.Context(), backstore.Record{Key: append(before, 0xFF), Value: filler},
		backstore.Record{Key: key, Value: value}, backstore.Record{Key: append(bytes.Clone(key), 0), Value: filler})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	var newest string // of the checkpoints
	names, _ := filepath.Glob(filepath.Join(dir, "checkpoints", "*.rows*"))
	damaged := 0
	for _, name := range slices.Backward(names) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(content, value)
		if run, _, _ := strings.Cut(filepath.Base(name), ".rows"); at < 0 || newest != "" && run != newest {
			continue
		} else {
			newest = run
		}
		content[at] ^= 1
		if err := os.WriteFile(name, content, fs.FileMode(0o600)); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	if damaged != 2 {
		t.Fatalf("the record %q is in %d files", key, damaged)
	}
	return key
}

// lostWorld is a server with a record of each kind, and what it is to find again.
type lostWorld struct {
	lost, other, deleted *tokens.Token
}

func makeLostWorld(t *testing.T, s *Service) (w lostWorld) {
	t.Helper()
	v, err := s.store.Volume("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(t.Context(), bytes.Repeat([]byte("a"), 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	for _, tok := range []**tokens.Token{&w.lost, &w.other, &w.deleted} {
		res, err := s.tokens.OffloadRead(t.Context(), tokens.Source{Volume: v, LU: tokens.LU{BlockLength: 512}}, []blockdev.Range{{Length: 1 << 20}}, tokens.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		*tok = res.Token
	}
	// ScanRecords finds the largest ID last.
	if w.lost.ID() < w.other.ID() {
		w.lost, w.other = w.other, w.lost
	}
	if err := s.tokens.Delete(t.Context(), w.deleted.ID(), tokens.Deleted); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestService_LostRecords: a record that is damaged in both copies costs what it says, and
// no other LUN or token. The server starts, and its status shows the damage.
func TestService_LostRecords(t *testing.T) {
	for _, tt := range []struct {
		name, prefix string
		notServed    []int // LUNs
		lost         error // of the token
		lostOther    error
		deleted      error
		attentions   []uint16 // at each LUN
		restored     bool     // the record was made again
	}{
		{name: "token", prefix: "token/live/", lost: tokens.ErrUnknown},
		{name: "tombstone", prefix: "token/dead/", deleted: tokens.ErrUnknown, restored: true},
		{name: "key of tokens", prefix: "token/key", lost: tokens.ErrCorrupt, lostOther: tokens.ErrCorrupt, deleted: tokens.ErrCorrupt, restored: true},
		{name: "port numbers", prefix: "server/ports", restored: true},
		{name: "LUN history", prefix: "server/luns", attentions: []uint16{powerOn, replaced, luns}, restored: true},
		{name: "reservations", prefix: "unit/%/reservations", notServed: []int{0}},
		{name: "mode parameters", prefix: "unit/%/modes", notServed: []int{0}},
		{name: "mirror", prefix: "view/m/mirror", notServed: []int{2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := parse(t, t.TempDir(), recordsConfig)
			makeLegs(t, cfg.DataDir)
			s := start(t, cfg)
			w := makeLostWorld(t, s)
			prefix := tt.prefix
			if kind, ok := strings.CutPrefix(prefix, "unit/%"); ok {
				id := s.state.Load().unit("volume a").ID()
				prefix = fmt.Sprintf("unit/%x", id) + kind
				if err := admin.NewUnitRecords(s.store, id).Save(t.Context(), kind[1:], []byte("is never decoded, as it is lost")); err != nil {
					t.Fatal(err)
				}
			}
			snapshots := countSnapshots(t, s)
			stop(t, s)
			key := loseRecord(t, cfg.DataDir, prefix)
			s = start(t, cfg)

			for _, l := range s.LUNs() {
				if (l.Problem != "") != slices.Contains(tt.notServed, int(l.Number)) {
					t.Errorf("LUN %d: problem %q", l.Number, l.Problem)
				}
				if l.Problem != "" && (!strings.Contains(l.Problem, string(key)) || !strings.Contains(l.Problem, "odx store repair")) {
					t.Errorf("LUN %d: %q does not name the record and what to do", l.Number, l.Problem)
				}
			}
			for _, x := range []struct {
				name string
				tok  *tokens.Token
				want error
			}{{"lost", w.lost, tt.lost}, {"other", w.other, tt.lostOther}, {"deleted", w.deleted, cmp.Or(tt.deleted, tokens.ErrDeleted)}} {
				if _, err := s.tokens.Lookup(x.tok); !errors.Is(err, x.want) {
					t.Errorf("token %s: %v, want %v", x.name, err, x.want)
				}
			}
			damage, _ := s.store.Damage()
			if named := slices.ContainsFunc(damage, func(d backstore.Damaged) bool { return strings.Contains(d.What, "record") }); named == tt.restored {
				t.Errorf("damage %+v", damage)
			}
			wantAttentions(t, s, tt.attentions)

			// What the lost token holds is not freed.
			stop(t, s)
			s = start(t, cfg)
			if n := countSnapshots(t, s); n != snapshots {
				t.Errorf("%d snapshots, were %d", n, snapshots)
			}
			if findings, err := s.store.Check(t.Context()); err != nil || len(findings) > 0 {
				t.Errorf("check: %v, %v", findings, err)
			}
		})
	}
}

func countSnapshots(t *testing.T, s *Service) int {
	t.Helper()
	st, err := s.store.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Snapshots
}

func wantAttentions(t *testing.T, s *Service, want []uint16) {
	t.Helper()
	if want == nil {
		want = []uint16{powerOn}
	}
	for _, l := range s.LUNs() {
		if l.Problem != "" {
			continue
		}
		c := dial(t, l.URLs[0], "")
		if got := attentions(t, c); !slices.Equal(got, want) {
			t.Errorf("LUN %d: attentions %x, want %x", l.Number, got, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// makeLegs makes the volumes of the mirror.
func makeLegs(t *testing.T, dir string) {
	t.Helper()
	s, err := backstore.Open(t.Context(), backstore.Options{Dir: dir, Log: logs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x", "y"} {
		if _, err := s.CreateVolume(t.Context(), name, 1<<20); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
