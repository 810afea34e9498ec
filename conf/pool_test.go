package conf

import (
	"strings"
	"testing"
)

const poolText = `
portals: ["127.0.0.1:3260"]
targets:
  - {name: "iqn.2026-11.example:one", luns: [{lun: 0, volume: a, size: 1MiB}]}
`

// What the file says of a pool is what it is parsed to, and what Effective prints is the same.
func TestPool(t *testing.T) {
	for text, want := range map[string]Pool{
		"data_dir: rados:disks":         {Name: "disks", Namespace: "odx", User: "client.odx", RunDir: "/run/odx"},
		"data_dir: rados:disks/one.two": {Name: "disks", Namespace: "one.two", User: "client.odx", RunDir: "/run/odx"},
		"data_dir: rados:.mgr":          {},
		"data_dir: rados:disks/one/two": {},
		"data_dir: 'rados:disks/'":      {},
		"data_dir: 'rados:'":            {},
		"data_dir: rados:disks/one\nceph: {conf: ceph.conf, user: client.me, keyring: /k, run_dir: run}": {
			Name: "disks", Namespace: "one", User: "client.me", Conf: "/etc/odx/ceph.conf", Keyring: "/k", RunDir: "/etc/odx/run",
		},
	} {
		cfg, err := Parse("/etc/odx/odx.yaml", []byte(text+poolText))
		if want == (Pool{}) {
			if err == nil || !strings.Contains(err.Error(), "data_dir: invalid place in a pool") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil || cfg.Pool == nil || *cfg.Pool != want || cfg.DataDir != want.String() || cfg.LocalDir() != want.RunDir {
			t.Errorf("%s: %+v, %v", text, cfg, err)
			continue
		}
		effective, err := cfg.Effective()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("/etc/odx/odx.yaml", effective)
		if err != nil || again.Pool == nil || *again.Pool != want {
			t.Errorf("%s: what is effective: %v\n%s", text, err, effective)
		} else if changes := Diff(cfg, again); len(changes) > 0 {
			t.Errorf("%s: differences %v", text, changes)
		}
	}
}

// Another pool, or another way to it, needs a restart.
func TestPool_Diff(t *testing.T) {
	parse := func(text string) *Config {
		cfg, err := Parse("/etc/odx/odx.yaml", []byte(text+poolText))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	before := parse("data_dir: rados:disks/one")
	for _, text := range []string{"data_dir: rados:disks/two", "data_dir: /srv/odx", "data_dir: rados:disks/one\nceph: {user: client.me}"} {
		changes := Diff(before, parse(text))
		if len(changes) == 0 {
			t.Errorf("%s: no difference", text)
		}
		for _, c := range changes {
			if c.Class != NeedsRestart {
				t.Errorf("%s: %v is of class %v", text, c, c.Class)
			}
		}
	}
}
