package conf

import (
	"fmt"
	"testing"
)

// Initiators may change the states of paths unless the configuration has paths, or
// initiators_set_paths overrides that.
func TestParse_FixedPaths(t *testing.T) {
	const paths = `
    paths: [{portal_group: 1, state: nonoptimized}]`
	for _, tt := range []struct {
		keys  string
		fixed bool
	}{
		{"", false},
		{paths, true},
		{paths + "\n    initiators_set_paths: true", false},
		{"\n    initiators_set_paths: false", true},
	} {
		t.Run(tt.keys, func(t *testing.T) {
			c, err := Parse("odx.yaml", fmt.Appendf(nil, `
data_dir: data
portals: ["127.0.0.1:3260"]
targets:
  - name: iqn.2026-11.example.odx:a%s
    luns: [{lun: 0, volume: a, size: 1MiB}]
`, tt.keys))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Targets[0].FixedPaths; got != tt.fixed {
				t.Errorf("%q: fixed %v, want %v", tt.keys, got, tt.fixed)
			}
		})
	}
}
