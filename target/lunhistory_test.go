package target

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
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
