package target

import (
	"strings"
	"testing"
)

// TestNames_of_initiators: names that are not as RFC 7143 has them log in, and can be
// named in access lists; what no configuration can name does not log in.
func TestNames_of_initiators(t *testing.T) {
	cfg := parse(t, t.TempDir(), `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: [{lun: 0, volume: src, size: 1MiB}]
    access:
      - {initiators: ["my_host", "iqn.2015-1.com.example:x", "iqn.2026-11.example:a_b*"]}
copy:
  rules:
    - {initiators: ["my_host"], from: [src], allow: false}
`)
	s := start(t, cfg)
	login := func(name string) error {
		c, err := tryDial(t, s.LUNs()[0].URLs[0], name)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	for _, name := range []string{"my_host", "MY_HOST", "iqn.2015-1.com.example:x", "iqn.2026-11.example:a_bc"} {
		if err := login(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"my_host2":               "0202",
		"iqn.2026-11.example:ab": "0202",
		"iqn.2026-11.example:a*": "0207",
		"\xffhost":               "0207",
	} {
		if err := login(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want refusal %s", name, err, want)
		}
	}
}
