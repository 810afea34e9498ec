package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/backstore/vfs/rados"
	"odx/conf"
	"odx/internal/kit/must"
	"odx/pool/facts"
	"odx/pool/shardserver"
)

const sharedText = `
data_dir: rados:odx/disks
ceph: {run_dir: run, shards: 3, nodes: [{name: a, address: 192.0.2.1}, {name: b, address: 192.0.2.2}]}
portals: ["0.0.0.0:3260"]
api: {listen: "0.0.0.0:8440", secret: the administrator}
targets:
  - {name: "iqn.2026-11.example:zero", luns: [{lun: 0, volume: v0, size: 1MiB}]}
  - {name: "iqn.2026-11.example:one", shard: 1, luns: [{lun: 0, file: f, size: 1MiB}]}
  - {name: "iqn.2026-11.example:two", shard: 2, luns: [{lun: 0, volume: v2, size: 1MiB}]}
`

func sharedConfig(t *testing.T, changes ...string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse(filepath.Join(t.TempDir(), "odx.yaml"), []byte(strings.NewReplacer(changes...).Replace(sharedText)))
	must.Succeed(t, err)
	return cfg
}

// Servers of shards are peers of those whose stores are known, at the address of each node, with
// the certificates of the pool; what the configuration says of peers comes first.
func TestAddPeers(t *testing.T) {
	ids := []string{strings.Repeat("00", 16), strings.Repeat("11", 16), ""}
	for name, c := range map[string]struct {
		changes []string
		want    string
		own     bool // the certificate of the API is that of the pool
	}{
		"all":           {nil, "shard-1 [https://192.0.2.1:8442 https://192.0.2.2:8442] true", true},
		"no API":        {[]string{"api: {listen: \"0.0.0.0:8440\", secret: the administrator}", ""}, "", false},
		"local API":     {[]string{"0.0.0.0:8440", "127.0.0.1:8440"}, "", false},
		"a certificate": {[]string{"secret: the administrator", "secret: the administrator, certificate: c, private_key: k"}, "shard-1 [https://192.0.2.1:8442 https://192.0.2.2:8442] false", false},
		"said":          {[]string{"targets:", "peers: [{name: other, store: " + ids[1] + ", addresses: [\"https://192.0.2.9:1\"]}]\ntargets:"}, "other [https://192.0.2.9:1] false", true},
	} {
		cfg := sharedConfig(t, c.changes...)
		part, err := cfg.Part("a", 0)
		must.Succeed(t, err)
		part.Extend(func(next *conf.Config) { addPeers(next, shardserver.Plan{Shard: 0, Stores: ids}) })
		for range 2 {
			var got []string
			for _, p := range part.Peers {
				got = append(got, fmt.Sprint(p.Name, " ", p.Addresses, " ", p.CA != ""))
			}
			if strings.Join(got, "; ") != c.want || (part.API.Certificate == peerFile(cfg, 0, "pem")) != c.own {
				t.Errorf("%s: peers %q, certificate %s", name, got, part.API.Certificate)
			}
			if part, err = part.Again(cfg.Text()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The files by which servers know each other are those of the pool, and private.
func TestWritePeers(t *testing.T) {
	cfg := sharedConfig(t)
	f, err := facts.New(rados.NewTwin(nil).Client()).Make(3)
	must.Succeed(t, err)
	for range 2 {
		must.Succeed(t, writePeers(cfg, f))
		for k := range 3 {
			certificate, key, err := f.Certificate(k, nil)
			must.Succeed(t, err)
			for kind, length := range map[string]int{"pem": len(certificate), "key": len(key)} {
				info, err := os.Stat(peerFile(cfg, k, kind))
				if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 || kind == "key" && info.Size() != int64(length) {
					t.Errorf("%s of shard %d: %v, %v", kind, k, info, err)
				}
			}
		}
	}
}

// A command is for the shard that it says, or that has what it names.
func TestChooseShard(t *testing.T) {
	cfg := sharedConfig(t)
	for _, c := range []struct {
		args []string
		want int // -1: an error
	}{
		{[]string{"iqn.2026-11.example:two", "0"}, 2}, {[]string{"v0"}, 0}, {[]string{"file:f", "new"}, 1}, {[]string{"v0", "v2"}, -1}, {[]string{"none"}, -1}, {nil, -1},
	} {
		k, err := (&adminOptions{}).chooseShard(t.Context(), cfg, c.args)
		if (err == nil) != (c.want >= 0) || err == nil && k != c.want {
			t.Errorf("%v: shard %d, %v", c.args, k, err)
		}
	}
	var n shardNumber
	for text, ok := range map[string]bool{"0": true, "63": true, "64": false, "-1": false, "x": false} {
		if err := n.Set(text); (err == nil) != ok || ok && n.String() != text {
			t.Errorf("--shard %s: %v, %s", text, err, &n)
		}
	}
	if names := sharedNames(cfg); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("nodes %v", names)
	}
}

func sharedNames(cfg *conf.Config) []string { return (&shared{cfg: cfg}).names() }
