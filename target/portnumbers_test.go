package target

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"odx/internal/kit/sample"
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
	if got, err := n.of("iqn.d", 1); err != nil || got != 2 {
		t.Errorf("after number 65535: %d, %v; want the lowest that is free", got, err)
	}
	n = &portNumbers{}
	for number := range math.MaxUint16 {
		n.Ports = append(n.Ports, numberedPort{"iqn.a", uint16(number + 1), uint16(number + 1)})
	}
	if got, err := n.of("iqn.e", 1); err == nil {
		t.Errorf("all numbers are taken: %d", got)
	}
}

// TestPortNumbers_forget: targets that come and go for years neither use up the numbers nor
// fill a record; those that are configured keep theirs.
func TestPortNumbers_forget(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), one()))
	defer stop(t, s)
	cfg := s.state.Load().cfg
	n, err := loadPortNumbers(s.store, s.log)
	if err != nil {
		t.Fatal(err)
	}
	want, err := n.of(cfg.Targets[0].Name, 1)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 200)
	for i := range sample.Size(2, 20, 20) * maxAbsentPorts {
		if _, err := n.of(fmt.Sprintf("iqn.2026-11.example.odx:%s%d", long, i), 1); err != nil {
			t.Fatalf("target %d: %v", i, err)
		}
		if i%1000 == 999 {
			n.forget(cfg)
		}
	}
	n.forget(cfg)
	if err := n.save(t.Context(), s.store); err != nil {
		t.Fatal(err)
	}
	if n, err = loadPortNumbers(s.store, s.log); err != nil || len(n.Ports) != maxAbsentPorts+1 {
		t.Errorf("%d ports, %v", len(n.Ports), err)
	}
	if got, err := n.of(cfg.Targets[0].Name, 1); err != nil || got != want || n.changed {
		t.Errorf("the configured port has number %d, %v; want %d", got, err, want)
	}
}
