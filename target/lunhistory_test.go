package target

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"odx/conf"
)

// Unit attentions, as ASC and ASCQ.
const (
	powerOn  = 0x2900
	replaced = 0x3F03 // INQUIRY DATA HAS CHANGED
	luns     = 0x3F0E // REPORTED LUNS DATA HAS CHANGED
)

// TestLUNs_replaced: where a restart puts another volume at a LUN, every nexus hears of
// it before its first command is run, at that LUN and, that there is something, at the
// others; also at a LUN that only some initiators see. Without a change nothing is
// said.
func TestLUNs_replaced(t *testing.T) {
	const host, guest = "iqn.2026-11.example:host", "iqn.2026-11.example:guest"
	dir := t.TempDir()
	config := func(first, second, third string, guests int) string {
		return fmt.Sprintf(`
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: %s, size: 1MiB}
      - {lun: 1, volume: %s, size: 1MiB}
      - {lun: 2, volume: %s, size: 1MiB}
    access:
      - {initiators: ["iqn.2026-11.example:guest"], luns: [{lun: %d, as: 0}]}
      - {initiators: ["*"]}
`, first, second, third, guests)
	}
	for _, tt := range []struct {
		name   string
		config string
		host   [3][]uint16
		guest  []uint16
	}{
		{"the first start", config("a", "b", "c", 2), [3][]uint16{{powerOn}, {powerOn}, {powerOn}}, []uint16{powerOn}},
		{"swapped", config("b", "a", "c", 2), [3][]uint16{{powerOn, replaced, luns}, {powerOn, replaced, luns}, {powerOn, luns}}, []uint16{powerOn}},
		{"no change", config("b", "a", "c", 2), [3][]uint16{{powerOn}, {powerOn}, {powerOn}}, []uint16{powerOn}},
		{"another volume", config("b", "a", "d", 2), [3][]uint16{{powerOn, luns}, {powerOn, luns}, {powerOn, replaced, luns}}, []uint16{powerOn, replaced, luns}},
		{"another for the guest", config("b", "a", "d", 1), [3][]uint16{{powerOn}, {powerOn}, {powerOn}}, []uint16{powerOn, replaced, luns}},
	} {
		s, said := startLogging(t, parse(t, dir, tt.config))
		first := strings.TrimSuffix(s.LUNs()[0].URLs[0], "0")
		for _, name := range []string{host, guest} {
			want := tt.host[:]
			if name == guest {
				want = [][]uint16{tt.guest}
			}
			for lun, want := range want {
				c := dial(t, first+strconv.Itoa(lun), name)
				if got := attentions(t, c); !slices.Equal(got, want) {
					t.Errorf("%s: %s, LUN %d: unit attentions %04x, want %04x", tt.name, name, lun, got, want)
				}
				c.Close()
			}
		}
		if warned := strings.Contains(said.String(), "another disk than before"); warned != (tt.name != "the first start" && tt.name != "no change") {
			t.Errorf("%s: warned %v: %s", tt.name, warned, said.String())
		}
		stop(t, s)
	}
}

// TestLUNHistory_many: more LUNs than one record holds are kept. Of those that are not
// configured any more, the ones that came first are forgotten: one that comes again may be
// another disk.
func TestLUNHistory_many(t *testing.T) {
	const name = "iqn.2026-11.example.odx:many"
	s := start(t, parse(t, t.TempDir(), one()))
	defer stop(t, s)
	h, err := loadLUNHistory(s.store, s.log)
	if err != nil {
		t.Fatal(err)
	}
	const more = 2*maxAbsentLUNs + 10
	configured := map[place]bool{}
	for lun := range uint16(more) {
		l := servedLUN{Target: name, LUN: lun, Unit: "0123456789abcdef0123456789abcdef", Medium: "volume " + strings.Repeat("v", 60)}
		if before := h.serve(l); before != nil {
			t.Fatalf("LUN %d was %v", lun, before)
		}
		if lun < maxAbsentLUNs {
			configured[place{name, "", lun}] = true
		}
	}
	h.forget(configured)
	if err := h.save(t.Context(), s.store); err != nil {
		t.Fatal(err)
	}
	if h, err = loadLUNHistory(s.store, s.log); err != nil {
		t.Fatal(err)
	}
	if want := 2 * maxAbsentLUNs; len(h.LUNs) != want {
		t.Errorf("%d LUNs in the history, want %d", len(h.LUNs), want)
	}
	for _, tt := range []struct {
		lun      uint16
		replaced bool
	}{{0, false}, {more - 1, false}, {maxAbsentLUNs, true}} {
		l := servedLUN{Target: name, LUN: tt.lun, Unit: "0123456789abcdef0123456789abcdef", Medium: "volume v"}
		if before := h.serve(l); before != nil || h.replaced()[place{name, "", tt.lun}] != tt.replaced {
			t.Errorf("LUN %d: was %v, replaced %v", tt.lun, before, !tt.replaced)
		}
	}
}

// TestService_PutConfig_Refused: a change that is refused at its last step says nothing of the
// disks that initiators would have found, and the one that is applied says it once.
func TestService_PutConfig_Refused(t *testing.T) {
	before := one("{lun: 5, volume: five, size: 1MiB}")
	next := one("{lun: 5, volume: six, size: 1MiB}")
	s := serveFile(t, before)
	s.reached = func(step string) {
		if step == "stored" {
			s.write(before + "# edited\n")
		}
	}
	if _, err := s.PutConfig(t.Context(), []byte(next), ""); !errors.Is(err, conf.ErrChanged) {
		t.Fatalf("a file that was edited in the meantime: %v", err)
	}
	s.reached = nil
	const words = "LUN has another disk than before"
	if said := s.log.String(); strings.Contains(said, words) {
		t.Errorf("a refused change was logged as if it were applied: %s", said)
	}
	s.reload(next)
	if said := s.log.String(); strings.Count(said, words) != 1 {
		t.Errorf("the change was logged other than once: %s", said)
	}
}
