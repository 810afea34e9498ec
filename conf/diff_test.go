package conf

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// parsed returns the configuration of a text.
func parsed(t testing.TB, text string) *Config {
	t.Helper()
	cfg, err := Parse("/etc/odx/odx.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return cfg
}

// full returns the text of the example with all keys.
func full(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("examples/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDiff(t *testing.T) {
	const base = `data_dir: /var/lib/odx
portals: ["127.0.0.1:3260", "127.0.0.2:3260"]
targets:
  - name: iqn.2026-11.example:a
    luns: [{lun: 0, volume: a, size: 1GiB}, {lun: 1, volume: b, size: 1GiB}]
    authentication: {users: [{name: u, secret: one}, {name: v, secret_file: v}]}
    access: [{initiators: [x]}, {initiators: [y, z]}, {initiators: ["*"], read_only: true}]
  - {name: iqn.2026-11.example:b, luns: [{lun: 0, volume: c}]}
copy: {rules: [{from: [a], allow: true}, {allow: false}]}
views: [{name: v, verify: {of: d}}]
`
	const a = "targets[iqn.2026-11.example:a]"
	for name, tt := range map[string]struct {
		from, to string // replaced in base
		want     []string
	}{
		"the same, written in another way": {`lun: 1, volume: b, size: 1GiB}`, `volume: b, lun: 01, size: 1024MiB, block_size: 512, dedup: true}`, nil},
		"entries in another order":         {`[{lun: 0, volume: a, size: 1GiB}, {lun: 1, volume: b, size: 1GiB}]`, `[{lun: 1, volume: b, size: 1GiB}, {lun: 0, volume: a, size: 1GiB}]`, nil},
		"names in another order":           {`[y, z]`, `[Z, y]`, nil},
		"a relative path":                  {"data_dir: /var/lib/odx", "data_dir: ../../var/lib/odx", nil},
		"data_dir":                         {"data_dir: /var/lib/odx", "data_dir: /srv", []string{"data_dir: /var/lib/odx becomes /srv (needs a restart)"}},
		"a portal that comes":              {`"127.0.0.2:3260"]`, `"127.0.0.2:3260", "127.0.0.3:0,2"]`, []string{"portals[127.0.0.3:0]: 127.0.0.3:0,2 added (at once)"}},
		"another group of a portal":        {`"127.0.0.2:3260"]`, `"127.0.0.2:3260,2"]`, []string{"portals[127.0.0.2:3260].address: 127.0.0.2:3260 becomes 127.0.0.2:3260,2 (at once)"}},
		"an address of a portal":           {`"127.0.0.2:3260"]`, `{address: "127.0.0.2:3260", advertise: "a:1"}]`, []string{"portals[127.0.0.2:3260].advertise: a:1 added (at once)"}},
		"a LUN that comes":                 {`{lun: 1, volume: b, size: 1GiB}]`, `{lun: 1, volume: b, size: 1GiB}, {lun: 7, volume: e, size: 2GiB, read_only: true}]`, []string{a + ".luns[7]: {lun: 7, volume: e, size: 2GiB, read_only: true} added (at once)"}},
		"a LUN that goes":                  {`, {lun: 1, volume: b, size: 1GiB}]`, `]`, []string{a + ".luns[1]: {lun: 1, volume: b, size: 1GiB} removed (at once)"}},
		"a LUN with another medium":        {`volume: b, size: 1GiB`, `file: b`, []string{a + ".luns[1].volume: b removed (at once)", a + ".luns[1].file: b added (at once)", a + ".luns[1].size: 1GiB removed (at once)"}},
		"another block size":               {`volume: b, size: 1GiB`, `volume: b, size: 1GiB, block_size: 4096`, []string{a + ".luns[1].block_size: 512 becomes 4096 (needs a restart)"}},
		"another block size of another medium": {`volume: b, size: 1GiB`, `volume: e, size: 1GiB, block_size: 4096`, []string{
			a + ".luns[1].volume: b becomes e (at once)", a + ".luns[1].block_size: 512 becomes 4096 (at once)"}},
		"another block size at another LUN": {`{lun: 1, volume: b, size: 1GiB}`, `{lun: 2, volume: b, size: 1GiB, block_size: 4096}`, []string{
			a + ".luns[1]: {lun: 1, volume: b, size: 1GiB} removed (at once)", a + ".luns[2]: {lun: 2, volume: b, size: 1GiB, block_size: 4096} added (needs a restart)"}},
		"a secret":                      {`secret: one`, `secret: two`, []string{a + ".authentication.users[u].secret: (masked) becomes (masked) (at once)"}},
		"a secret that moves":           {`secret: one`, `secret_env: ONE`, []string{a + ".authentication.users[u].secret: (masked) removed (at once)", a + ".authentication.users[u].secret_env: ONE added (at once)"}},
		"a user that comes":             {`, {name: v,`, `, {name: w, secret: two}, {name: v,`, []string{a + ".authentication.users[w]: {name: w, secret: (masked)} added (at once)"}},
		"no authentication any more":    {"    authentication: {users: [{name: u, secret: one}, {name: v, secret_file: v}]}\n", "", []string{a + ".authentication: {users: [{name: u, secret: (masked)}, {name: v, secret_file: /etc/odx/v}]} removed (at once)"}},
		"an access entry that comes":    {`{initiators: [y, z]}`, `{addresses: [192.0.2.1]}, {initiators: [y, z]}`, []string{a + ".access[1]: {addresses: [192.0.2.1]} added (at once)"}},
		"access entries that swap":      {`{initiators: [x]}, {initiators: [y, z]}`, `{initiators: [y, z]}, {initiators: [x]}`, []string{a + ".access[0].initiators: x becomes y, z (at once)", a + ".access[1].initiators: y, z becomes x (at once)"}},
		"a copy rule that goes":         {`{from: [a], allow: true}, `, ``, []string{"copy.rules[0]: {from: [a], allow: true} removed (at once)"}},
		"a target that goes":            {"  - {name: iqn.2026-11.example:b, luns: [{lun: 0, volume: c}]}\n", "", []string{"targets[iqn.2026-11.example:b]: {name: \"iqn.2026-11.example:b\", luns: [{lun: 0, volume: c}]} removed (at once)"}},
		"another kind of view":          {`verify: {of: d}`, `origin: {of: d}`, []string{"views[v].verify: {of: d} removed (needs a restart)", "views[v].origin: {of: d} added (needs a restart)"}},
		"a default that is written out": {"views:", "limits: {sessions: 1024, commands: 128}\nlog: {level: info}\nviews:", nil},
		"a limit of new logins":         {"views:", "limits: {commands: 64}\nviews:", []string{"limits.commands: 128 becomes 64 (new logins)"}},
		"the API":                       {"views:", "api: {listen: '127.0.0.1:1', secret: one}\nviews:", []string{`api: {listen: "127.0.0.1:1", secret: (masked)} added (at once)`}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(base, tt.from) {
				t.Fatalf("%q is not in the text", tt.from)
			}
			var got []string
			for _, c := range Diff(parsed(t, base), parsed(t, strings.Replace(base, tt.from, tt.to, 1))) {
				got = append(got, fmt.Sprintf("%v (%v)", c, c.Class))
				if (c.Why != "") != (c.Class == NeedsRestart) {
					t.Errorf("%s: why is %q", c, c.Why)
				}
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// A file of the maximum length is compared and printed in a time that an administrator does
// not notice: no step takes the square of the number of LUNs.
func TestDiff_ManyLUNs(t *testing.T) {
	var b strings.Builder
	b.WriteString("data_dir: d\nportals: [\"127.0.0.1:1\"]\ntargets:\n  - name: iqn.2026-11.example:a\n    luns:\n")
	for i := range MaxLUN {
		fmt.Fprintf(&b, "      - {lun: %d, volume: volume-%d}\n", i, i)
	}
	before := parsed(t, b.String())
	after := parsed(t, strings.Replace(b.String(), "volume-7}", "volume-x}", 1))
	begin := time.Now()
	if d := Diff(before, after); len(d) != 1 {
		t.Errorf("%d changes", len(d))
	}
	if _, err := Apply(before.File, before.Text(), RemoveLUN{"iqn.2026-11.example:a", 9000}); err != nil {
		t.Error(err)
	}
	took := time.Since(begin)
	t.Logf("%v", took)
	if took > 20*time.Second {
		t.Errorf("it takes %v", took)
	}
}

// The effective configuration says the same, and is its own effective configuration.
func TestConfig_Effective(t *testing.T) {
	for _, file := range []string{"examples/full.yaml", "examples/container.yaml", "default.yaml"} {
		t.Run(file, func(t *testing.T) {
			cfg, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			checkEffective(t, cfg)
		})
	}
	cfg := parsed(t, minimal+"api: {listen: 'a:1', secret: what must not be seen}\n")
	text, err := cfg.Effective()
	if err != nil || bytes.Contains(text, []byte("seen")) || !bytes.Contains(text, []byte("secret: (masked)\n")) {
		t.Errorf("%v:\n%s", err, text)
	}
	if _, _, err := parsed(t, string(text)).API.Secrets[0].Secret.Read(); err == nil {
		t.Error("a masked secret can be used")
	}
}

// With its defaults, a configuration can be longer than a file may be.
func TestParseEffective_Long(t *testing.T) {
	var b strings.Builder
	b.WriteString("data_dir: data\nportals: ['127.0.0.1:3260']\ntargets:\n  - name: iqn.2026-11.example.odx:d\n    luns:\n")
	for i := range 16384 {
		fmt.Fprintf(&b, "      - {lun: %d, volume: v%d, size: 1GiB}\n", i, i)
	}
	cfg := parsed(t, b.String())
	text, err := cfg.Effective()
	if err != nil || len(text) <= maxFile {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	again, err := ParseEffective("odx.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if d := Diff(cfg, again); len(d) > 0 {
		t.Errorf("differs in %v", d)
	}
}

// The URL of a webhook is a secret for many services: of it, server and port are shown.
func TestConfig_Effective_webhooks(t *testing.T) {
	for _, tt := range []struct{ url, shown string }{
		{"https://a.example", "https://a.example"},
		{"https://a.example:8443/", "https://a.example:8443/"},
		{"https://a.example/services/T0/B0/seen", "https://a.example/(masked)"},
		{"https://a.example/?token=seen", "https://a.example/(masked)"},
		{"https://user:seen@a.example:8443", "https://a.example:8443/(masked)"},
		{"https://seen@[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/(masked)"},
	} {
		cfg := parsed(t, minimal+"alerts: [{name: ops, url: '"+tt.url+"'}]\n")
		if at, err := cfg.Alerts[0].Target(); at != tt.url || err != nil {
			t.Errorf("%s is used as %s, %v", tt.url, at, err)
		}
		text, err := cfg.Effective()
		if err != nil || bytes.Contains(text, []byte("seen")) || !bytes.Contains(text, []byte(tt.shown)) {
			t.Errorf("%s, %v:\n%s", tt.url, err, text)
		}
		if at, err := parsed(t, string(text)).Alerts[0].Target(); (err == nil) != (tt.url == tt.shown) {
			t.Errorf("%s: what is printed is used as %q, %v", tt.url, at, err)
		}
		other := parsed(t, minimal+"alerts: [{name: ops, url: 'https://a.example/seen/other'}]\n")
		if d := Diff(cfg, other); len(d) != 1 || strings.Contains(fmt.Sprint(d), "seen") {
			t.Errorf("%s: differences %v", tt.url, d)
		}
		if d := Diff(parsed(t, minimal), cfg); len(d) != 1 || strings.Contains(fmt.Sprint(d), "seen") {
			t.Errorf("%s: differences %v", tt.url, d)
		}
	}
}

// checkEffective checks the round trip of a configuration.
func checkEffective(t *testing.T, cfg *Config) {
	t.Helper()
	text, err := cfg.Effective()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(cfg.File, text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, c := range Diff(cfg, again) {
		if !strings.HasSuffix(c.Before, masked) {
			t.Errorf("%s\n%s", c, text)
		}
	}
	twice, err := again.Effective()
	if err != nil || !bytes.Equal(text, twice) {
		t.Errorf("%v:\n%s\nbecomes\n%s", err, text, twice)
	}
}

// cannotChange are the keys that are no change alone, with the reason.
var cannotChange = map[string]string{
	"ceph.conf":                  "the example has a directory",
	"ceph.user":                  "the example has a directory",
	"ceph.keyring":               "the example has a directory",
	"ceph.run_dir":               "the example has a directory",
	"ceph.addresses.address":     "the example has a directory",
	"ceph.addresses.interface":   "the example has a directory",
	"ceph.addresses.shard":       "the example has a directory",
	"ceph.shards":                "the example has a directory",
	"ceph.nodes.name":            "the example has a directory",
	"ceph.nodes.address":         "the example has a directory",
	"targets.shard":              "the example has a directory",
	"targets.luns.view":          "another view is another size",
	"targets.paths.portal_group": "the example has one group per path",
	"tokens.groups.name":         "rules name it",
	"views.snapshot.of":          "the example has one origin",
	"qos.luns.bytes_burst":       "a burst needs a rate",
	"qos.background.iops_burst":  "a burst needs a rate",
}

// Each key of the example, changed alone, is the one difference; the key that names an
// entry makes it another entry.
func TestDiff_eachKey(t *testing.T) {
	base := parsed(t, full(t))
	if d := Diff(base, base); len(d) > 0 {
		t.Errorf("differs from itself: %v", d)
	}
	changed := map[string]bool{} // by key without names
	visitLeaves("", reflect.ValueOf(base.file()).Elem(), func(key string, f field, v reflect.Value) {
		short := schemaKey(key)
		changed[short] = changed[short] || changeKey(t, base, key, others(f, v))
	})
	for key, ok := range changed {
		_, known := cannotChange[key]
		known = known || isSecretSource(key)
		if !ok && !known {
			t.Errorf("%s: no other value was accepted", key)
		} else if ok && known && !isSecretSource(key) {
			t.Errorf("%s can be changed", key)
		}
	}
}

// isSecretSource reports whether a key is one of three, of which one is given; TestDiff
// has those.
func isSecretSource(key string) bool {
	_, name, _ := strings.Cut(key[max(0, strings.LastIndex(key, ".secret")):], ".")
	return name == "secret" || name == "secret_file" || name == "secret_env"
}

// changeKey changes a key to the first of several values that is valid and means something
// else, and compares. It reports whether there is one.
func changeKey(t *testing.T, base *Config, key string, alternatives []string) bool {
	t.Helper()
	for _, other := range alternatives {
		file := reflect.ValueOf(base.file()).Elem()
		var names bool
		visitLeaves("", file, func(k string, f field, v reflect.Value) {
			if k == key {
				assign(v, other)
				names = strings.Contains("|name|lun|address|portal_group|", "|"+f.name+"|")
			}
		})
		next, err := Parse(base.File, encoded(t, mapping(file, printing{secrets: true})))
		if err != nil {
			continue
		}
		d := Diff(base, next)
		switch {
		case len(d) == 0: // it means the same
			continue
		case names && len(d) == 2 && d[0].After == "" && d[1].Before == "":
		case len(d) != 1 || d[0].Key != key:
			t.Errorf("%s: %s: %v", key, other, d)
		}
		return true
	}
	return false
}

var brackets = regexp.MustCompile(`\[(\[[^]]*\]|[^][])*\]`)

// schemaKey returns a key without the names and numbers of entries.
func schemaKey(key string) string { return brackets.ReplaceAllString(key, "") }

func encoded(t *testing.T, n *yaml.Node) []byte {
	t.Helper()
	b, err := yaml.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// visitLeaves visits all scalars and lists of scalars, with their keys as in Change.
func visitLeaves(key string, v reflect.Value, visit func(key string, f field, v reflect.Value)) {
	for i := range v.NumField() {
		f, value := fieldAt(v.Type(), i), v.Field(i)
		at := strings.TrimPrefix(key+"."+f.name, ".")
		switch {
		case isLeaf(f.kind), f.kind.Kind() == reflect.Slice && isLeaf(f.kind.Elem()):
			visit(at, f, value)
		case f.kind.Kind() == reflect.Slice && f.list != "":
			for _, e := range entries(f, value) {
				visitLeaves(at+"["+e.name+"]", pointed(e.value), visit)
			}
		case f.kind.Kind() == reflect.Slice:
			for j := range value.Len() {
				visitLeaves(fmt.Sprintf("%s[%d]", at, j), pointed(value.Index(j)), visit)
			}
		case f.kind.Kind() == reflect.Pointer && value.IsNil():
		default:
			visitLeaves(at, pointed(value), visit)
		}
	}
}

// assign sets a scalar, or a list of one.
func assign(v reflect.Value, text string) {
	if v.Kind() == reflect.Slice {
		v.Set(reflect.ValueOf(textsOf(strings.Split(text, "|"))))
		return
	}
	v.Set(reflect.ValueOf(&text))
}

// others returns values that a key may have instead of the one that it has.
func others(f field, v reflect.Value) []string {
	kind, arguments, _ := strings.Cut(f.is, " ")
	words := strings.Fields(arguments)
	var out []string
	switch kind {
	case "bool":
		out = []string{"true", "false"}
	case "enum":
		out = words
	case "int":
		out = []string{words[0], words[1], "3", "5"}
	case "size", "power":
		out = []string{words[0], "8KiB", "1MiB", "64MiB", "2MiB", "1GiB", "2GiB", "8GiB"}
	case "duration", "ping", "interval":
		out = []string{"1h0m0s", "2s", "30s", "2m0s"}
	case "pattern":
		out = []string{"iqn.2026-11.com.example:other"}
	case "network":
		out = []string{"203.0.113.0/24"}
	case "address", "portal", "listen":
		out = []string{"203.0.113.9:1234"}
	case "volume", "file", "device", "media", "label", "name", "chapname":
		out = []string{"other", "other|another", "iqn.2026-11.com.example:other", "iqn.2026-11.com.example:rescue"}
	case "identity":
		out = []string{"00112233445566778899aabbccddeeff"}
	case "backing":
		out = []string{"file:/other"}
	case "path":
		out = []string{"/other"}
	case "secret":
		out = []string{"another secret"}
	case "env":
		out = []string{"OTHER"}
	case "url":
		out = []string{"http://other.example.com/", "https://other.example.com"}
	case "peer":
		out = []string{"c"}
	case "replicated", "object", "word":
		out = []string{"other"}
	case "snapshotted":
		out = []string{"other", "other|another"}
	case "period":
		out = []string{"1h0m0s", "2h0m0s"}
	case "cron":
		out = []string{"15 4 * * *"}
	case "zone":
		out = []string{"America/Lima"}
	case "kept":
		out = []string{"3", "5"}
	case "span":
		out = []string{"3d"}
	case "snapshotname":
		out = []string{"%v.%p.%Y%m%d-%H%M%S"}
	case "storeid":
		out = []string{"ffeeddccbbaa99887766554433221100"}
	case "right":
		out = []string{"anyone", "initiator", "group:backup"}
	}
	return slices.DeleteFunc(out, func(s string) bool { return v.Kind() == reflect.Pointer && scalar(v) == s })
}
