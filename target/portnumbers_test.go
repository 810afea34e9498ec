package target

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// TestPortNumbers: targets that have one volume have ports of different numbers,
// which neither a restart nor adding or removing targets changes, and REPORT TARGET
// PORT GROUPS reports all of them by each.
func TestPortNumbers(t *testing.T) {
	dir := t.TempDir()
	cfg := func(names string) string {
		text := "data_dir: data\nportals: [\"127.0.0.1:0\"]\ntargets:\n"
		for _, name := range names {
			state := "optimized"
			if name == 'b' {
				state = "standby"
			}
			text += fmt.Sprintf("  - name: iqn.2026-11.example.odx:%c\n    luns: [{lun: 0, volume: a, size: 1MiB}]\n    paths: [{portal_group: 1, state: %s}]\n", name, state)
		}
		return text
	}
	groups := func(s *Service, lun int) string {
		t.Helper()
		c := dial(t, s.LUNs()[lun].URLs[0], "")
		defer c.Close()
		attentions(t, c)
		var text strings.Builder
		for d := portGroups(t, c)[4:]; len(d) > 0; d = d[12:] {
			fmt.Fprintf(&text, "%x:%x ", d[3], d[0])
		}
		return text.String()
	}
	for _, tt := range []struct {
		names string
		want  string
	}{
		{"ab", "1:0 2:2 "},
		{"b", "2:2 "},
		{"cb", "2:2 3:0 "}, // 1 was another's
		{"bac", "1:0 2:2 3:0 "},
		{"da", "1:0 4:0 "},
	} {
		s := start(t, parse(t, dir, cfg(tt.names)))
		for lun := range len(tt.names) {
			if got := groups(s, lun); got != tt.want {
				t.Errorf("targets %s, by LUN %d: groups %s, want %s", tt.names, lun, got, tt.want)
			}
		}
		stop(t, s)
	}
}

func TestPortNumbers_of(t *testing.T) {
	n := &portNumbers{Ports: []numberedPort{{"iqn.a", 1, 1}, {"iqn.a", 9, 40}}}
	for _, tt := range []struct {
		target      string
		group, want uint16
	}{
		{"iqn.a", 1, 1}, {"iqn.a", 9, 40}, {"iqn.b", 9, 9}, {"iqn.b", 1, 41}, {"iqn.b", 40, 42}, {"iqn.b", 1, 41},
		{"iqn.c", math.MaxUint16, math.MaxUint16},
	} {
		if got, err := n.of(tt.target, tt.group); err != nil || got != tt.want {
			t.Errorf("%s, group %d: %d, %v; want %d", tt.target, tt.group, got, err, tt.want)
		}
	}
	if got, err := n.of("iqn.d", 1); err == nil {
		t.Errorf("a number above 65535: %d", got)
	}
}
