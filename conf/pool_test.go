package conf

import (
	"net/netip"
	"reflect"
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
		"data_dir: rados:disks\nceph: {addresses: [{address: 192.0.2.10/24, interface: eth0}, {address: '2001:DB8::10/64', interface: bond0.7}]}": {
			Name: "disks", Namespace: "odx", User: "client.odx", RunDir: "/run/odx", Addresses: []OwnerAddress{
				{Prefix: netip.MustParsePrefix("192.0.2.10/24"), Interface: "eth0"}, {Prefix: netip.MustParsePrefix("2001:db8::10/64"), Interface: "bond0.7"},
			},
		},
	} {
		cfg, err := Parse("/etc/odx/odx.yaml", []byte(text+poolText))
		if want.Name == "" {
			if err == nil || !strings.Contains(err.Error(), "data_dir: invalid place in a pool") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil || cfg.Pool == nil || !reflect.DeepEqual(*cfg.Pool, want) || cfg.DataDir != want.String() || cfg.LocalDir() != want.RunDir {
			t.Errorf("%s: %+v, %v", text, cfg, err)
			continue
		}
		effective, err := cfg.Effective()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("/etc/odx/odx.yaml", effective)
		if err != nil || again.Pool == nil || !reflect.DeepEqual(*again.Pool, want) {
			t.Errorf("%s: what is effective: %v\n%s", text, err, effective)
		} else if changes := Diff(cfg, again); len(changes) > 0 {
			t.Errorf("%s: differences %v", text, changes)
		}
	}
}

// An address that follows the owner is one that a network interface can have.
func TestPool_Addresses(t *testing.T) {
	for entry, want := range map[string]string{
		"{address: 192.0.2.10, interface: eth0}":                                             `invalid address "192.0.2.10"`,
		"{address: 0.0.0.0/8, interface: eth0}":                                              "cannot be an address",
		"{address: 224.0.0.1/24, interface: eth0}":                                           "cannot be an address",
		"{address: 192.0.2.10/0, interface: eth0}":                                           "cannot be an address",
		"{address: '::ffff:192.0.2.10/120', interface: eth0}":                                "cannot be an address",
		"{address: 'fe80::1/64', interface: eth0}":                                           "one link alone",
		"{address: 192.0.2.10/24, interface: eth0:odx}":                                      "invalid name of a network interface",
		"{address: 192.0.2.10/24}":                                                           "interface",
		"{interface: eth0}":                                                                  "address",
		"{address: 192.0.2.9/24, interface: eth0}, {address: 192.0.2.9/32, interface: eth1}": "twice",
	} {
		_, err := Parse("/etc/odx/odx.yaml", []byte("data_dir: rados:disks\nceph: {addresses: ["+entry+"]}"+poolText))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ceph.addresses[") {
			t.Errorf("%s: %v, want %q", entry, err, want)
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
	for _, text := range []string{"data_dir: rados:disks/two", "data_dir: /srv/odx", "data_dir: rados:disks/one\nceph: {user: client.me}",
		"data_dir: rados:disks/one\nceph: {addresses: [{address: 192.0.2.10/24, interface: eth0}]}"} {
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
