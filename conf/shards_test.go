package conf

import (
	"fmt"
	"strings"
	"testing"
)

// shardsText is a configuration of a pool that nodes share; %s are more keys of ceph and of the file.
const shardsText = `
data_dir: rados:odx/disks
ceph:
  shards: 3
  run_dir: /run/odx
  nodes: [{name: a, address: 192.0.2.1}, {name: b, address: 192.0.2.2}]
  addresses: [{address: 192.0.2.9/24, interface: eth0, shard: 1}]
portals: ["0.0.0.0:3260"]
api: {listen: "0.0.0.0:8440", secret: 0123456789abcdef}
metrics: {listen: "127.0.0.1:9860"}
audit: {file: /var/log/odx.jsonl}
views: [{name: m, mirror: {legs: [x, y]}}, {name: unused, verify: {of: z}}]
snapshots:
  - {name: p, every: 1h, volumes: [a, "c*", x]}
  - {name: q, every: 1h, volumes: [x]}
qos: {luns: [{target: "iqn.2026-11.example:one", lun: 0, initiators: ["*"], iops: 10}]}
targets:
  - {name: "iqn.2026-11.example:zero", luns: [{lun: 0, volume: a, size: 1MiB}]}
  - {name: "iqn.2026-11.example:one", shard: 1, luns: [{lun: 0, view: m}]}
  - {name: "iqn.2026-11.example:two", shard: 2, luns: [{lun: 0, volume: c, size: 1MiB}]}
`

func parseShards(t *testing.T, changes ...string) (*Config, error) {
	t.Helper()
	text := shardsText
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("no %q in the configuration", changes[i])
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	return Parse("/etc/odx/odx.yaml", []byte(text))
}

// A server of a shard has what belongs to it, at ports of its own, and reads the file again so.
func TestConfig_Part(t *testing.T) {
	cfg, err := parseShards(t)
	if err != nil {
		t.Fatal(err)
	}
	for shard, want := range []string{
		"rados:odx/disks.0 /run/odx/shard-0 [192.0.2.2:3261] 192.0.2.2:8441 127.0.0.1:9861 /var/log/odx-shard-0.jsonl 0 [zero] [unused] [[a c*]] 0",
		"rados:odx/disks.1 /run/odx/shard-1 [192.0.2.2:3262 192.0.2.9:3260] 192.0.2.2:8442 127.0.0.1:9862 /var/log/odx-shard-1.jsonl 1 [one] [m] [[c* x] [x]] 1",
		"rados:odx/disks.2 /run/odx/shard-2 [192.0.2.2:3263] 192.0.2.2:8443 127.0.0.1:9863 /var/log/odx-shard-2.jsonl 0 [two] [] [[c*]] 0",
	} {
		p, err := cfg.Part("b", shard)
		if err != nil {
			t.Fatal(err)
		}
		for _, how := range []string{"reduced", "read again"} {
			var portals, targets, views, snapshots []string
			for _, x := range p.Portals {
				portals = append(portals, x.String())
			}
			for _, x := range p.Targets {
				targets = append(targets, strings.TrimPrefix(x.Name, "iqn.2026-11.example:"))
			}
			for _, x := range p.Views {
				views = append(views, x.Name)
			}
			for _, x := range p.Snapshots {
				snapshots = append(snapshots, fmt.Sprint(x.Volumes))
			}
			if got := fmt.Sprint(p.DataDir, " ", p.LocalDir(), " ", portals, " ", p.API.Listen, " ", p.Metrics.Listen, " ", p.Audit.File, " ", len(p.Pool.Addresses), " ", targets, " ", views, " ", snapshots, " ", len(p.QoS.LUNs)); got != want {
				t.Errorf("shard %d, %s:\n got %s\nwant %s", shard, how, got, want)
			}
			effective, err := p.Effective()
			if err == nil {
				_, err = ParseEffective("odx.yaml", effective)
			}
			if err != nil {
				t.Errorf("shard %d: what is effective: %v\n%s", shard, err, effective)
			}
			if p, err = p.Again(cfg.Text()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, want := range map[string]int{"iqn.2026-11.example:TWO": 2, "a": 0, "m": 1, "y": 1, "none": -1} {
		if k, ok := cfg.ShardOf(name); ok != (want >= 0) || ok && k != want {
			t.Errorf("%s is in shard %d, %t", name, k, ok)
		}
	}
	if _, err := cfg.Part("c", 0); err == nil {
		t.Error("a part for a machine that is no node")
	}
	effective, err := cfg.Effective()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseEffective("/etc/odx/odx.yaml", effective)
	if err != nil {
		t.Fatalf("what is effective: %v\n%s", err, effective)
	}
	for _, c := range Diff(cfg, again) {
		if c.Key != "api.secret" { // masked
			t.Errorf("what is effective differs: %v", c)
		}
	}
}

// What shards cannot have is a problem.
func TestConfig_Shards(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"shards: 3", "shards: 65", "ceph.shards: invalid value"},
		{"shards: 3", "shards: 2", "targets[2].shard: there is no shard 2"},
		{"shards: 3", "shards: 4", "shard 3 has no target"},
		{"  shards: 3\n", "", "ceph: shards and nodes require each other"},
		{"nodes: [{name: a, address: 192.0.2.1}, {name: b, address: 192.0.2.2}]", "", "ceph: shards and nodes require each other"},
		{"{name: b, address: 192.0.2.2}", "{name: a, address: 192.0.2.2}", "ceph.nodes[1].name: a is in the list twice"},
		{"{name: b, address: 192.0.2.2}", "{name: b, address: 192.0.2.1}", "ceph.nodes[1].address: 192.0.2.1 is in the list twice"},
		{"address: 192.0.2.2", "address: host", "ceph.nodes[1].address: invalid address"},
		{"name: b,", "name: b/c,", "ceph.nodes[1].name: invalid name"},
		{"shard: 1}]\nportals", "shard: 3}]\nportals", "ceph.addresses[0].shard: there is no shard 3"},
		{"0.0.0.0:3260", "192.0.2.1:3260", "portals: nodes that share shards"},
		{"0.0.0.0:8440", "0.0.0.0:3263", "api.listen: port 3263"},
		{"127.0.0.1:9860", "127.0.0.1:65534", "metrics.listen: the 3 ports after 65534"},
		{"volume: c,", "volume: a,", "targets[2].luns[0]: volume a is in shard 0"},
		{"volume: c,", "volume: y,", "targets[2].luns[0]: volume y is in shard 1"},
		{"data_dir: rados", "memory: 256MiB\ndata_dir: rados", "memory: 256MiB is too small"},
	} {
		if _, err := parseShards(t, c.old, c.new); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.new, err, c.want)
		}
	}
	if _, err := Parse("/etc/odx/odx.yaml", []byte("data_dir: /srv\n"+strings.Replace(poolText, "luns:", "shard: 1, luns:", 1))); err == nil || !strings.Contains(err.Error(), "there is no shard 1") {
		t.Errorf("a shard of a directory: %v", err)
	}
}

// Nodes agree on what matters to all, and not on what is a machine's own.
func TestConfig_Shared(t *testing.T) {
	cfg, err := parseShards(t)
	if err != nil {
		t.Fatal(err)
	}
	before, err := cfg.Shared()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"  run_dir: /run/odx\n", "  user: client.me\n  keyring: /k\n", ""},
		{"interface: eth0", "interface: eth1", ""},
		{"audit: {file: /var/log/odx.jsonl}", "memory: 2GiB\nlog: {level: debug}", ""},
		{"secret: 0123456789abcdef", "secret_file: /etc/odx/secret", ""},
		{"size: 1MiB", "size: 1024KiB", ""},
		{"lun: 0, volume: c", "lun: 1, volume: c", "targets"},
		{"address: 192.0.2.2", "address: 192.0.2.3", "ceph"},
		{"portals:", "limits: {commands: 64}\nportals:", "limits"},
		{"0.0.0.0:3260", "0.0.0.0:3360", "portals"},
	} {
		changed, err := parseShards(t, c.old, c.new)
		if err != nil {
			t.Fatal(err)
		}
		after, err := changed.Shared()
		if got := strings.Join(Differ(before, after), " "); err != nil || got != c.want || got != strings.Join(Differ(after, before), " ") {
			t.Errorf("%s: %q differs, want %q; %v", c.new, got, c.want, err)
		}
	}
}
