package conf

import (
	"errors"
	"strings"
	"testing"
)

const peersHead = `data_dir: /var/lib/odx
portals: ["127.0.0.1:3260"]
targets:
  - {name: "iqn.2026-11.example.odx:disks", luns: [{lun: 0, volume: src, size: 1GiB}]}
peers:
`

// TestPeers: what names a peer, and what is wrong with it.
func TestPeers(t *testing.T) {
	const id = "00112233445566778899aabbccddeeff"
	for _, tt := range []struct {
		name, text, problem string // problem: a part of it; "" for none
	}{
		{"whole", `  - {name: b, store: ` + id + `, addresses: ["https://b:3262", "https://[::1]:1/"], ca: ca.pem, secret_file: b.secret, certificate: c.pem, private_key: k.pem, accept: b.pem, read_bytes_per_s: 10MiB}`, ""},
		{"the least", `  - {name: b, store: ` + id + `, addresses: ["http://127.0.0.1:3262"]}`, ""},
		{"without a store", `  - {name: b, addresses: ["https://b:3262"]}`, "peers[0].store: missing"},
		{"another store ID", `  - {name: b, store: 0011, addresses: ["https://b:3262"]}`, "invalid ID of a store"},
		{"no address", `  - {name: b, store: ` + id + `}`, "peers[0].addresses: missing"},
		{"without TLS", `  - {name: b, store: ` + id + `, addresses: ["http://b:3262"]}`, "use https://"},
		{"a path", `  - {name: b, store: ` + id + `, addresses: ["https://b:3262/v1"]}`, "use https://HOST:PORT"},
		{"half a certificate", `  - {name: b, store: ` + id + `, addresses: ["https://b:3262"], certificate: c.pem}`, "require each other"},
		{"one store twice", `  - {name: b, store: ` + id + `, addresses: ["https://b:3262"]}
  - {name: c, store: ` + strings.ToUpper(id) + `, addresses: ["https://c:3262"]}`, "duplicate store"},
		{"one name twice", `  - {name: b, store: ` + id + `, addresses: ["https://b:3262"]}
  - {name: b, store: ffeeddccbbaa99887766554433221100, addresses: ["https://c:3262"]}`, "duplicate name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Parse("/etc/odx/odx.yaml", []byte(peersHead+tt.text+"\n"))
			if tt.problem == "" {
				if err != nil {
					t.Fatal(err)
				}
				text, err := cfg.Effective()
				if err != nil {
					t.Fatal(err)
				}
				again, err := ParseEffective(cfg.File, text)
				if err != nil {
					t.Fatalf("%v in\n%s", err, text)
				}
				if changes := Diff(cfg, again); len(changes) > 1 || len(changes) == 1 && !strings.Contains(changes[0].Key, "secret") {
					t.Errorf("the effective one differs: %+v", changes)
				}
				return
			}
			problems, _ := errors.AsType[Problems](err)
			if len(problems) != 1 || !strings.Contains(problems[0].Error(), tt.problem) {
				t.Errorf("%v, want one with %q", err, tt.problem)
			}
		})
	}
}
