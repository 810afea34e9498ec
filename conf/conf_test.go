package conf

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each testdata/bad/NAME.yaml has the problems in NAME.txt.
func TestParse_Problems(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("odx.yaml", text)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("Parse: %v, want Problems", err)
			}
			got := strings.ReplaceAll(problems.Error(), absolute(t, ".")+"/", "") + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func TestWriteDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odx.yaml")
	written, err := WriteDefault(path)
	if err != nil || !written {
		t.Fatalf("WriteDefault: %v, %v", written, err)
	}
	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.lines = nil
	want := &Config{
		File:    path,
		DataDir: filepath.Join(filepath.Dir(path), "odx-data"),
		Portals: []Portal{{Host: "127.0.0.1", Port: 3260, Group: 1}},
		Targets: []Target{{Name: "iqn.2026-11.example.odx:disks", LUNs: []LUN{
			{Number: 0, Volume: "src", Size: 10 << 30, BlockSize: 512, Key: "targets[0].luns[0]"},
			{Number: 1, Volume: "dst", Size: 10 << 30, BlockSize: 512, Key: "targets[0].luns[1]"},
		}}},
		Store: Store{ScrubEvery: 30 * 24 * time.Hour, SoftThreshold: 90, MetadataCopies: 2},
		Tokens: Tokens{
			WhenFull: "evict", UnderPressure: "give_up", Deletion: "mandatory", RunningCopy: "finish", Unmapped: "allow", Access: "anyone",
		},
		Limits: Limits{Snapshots: 10000},
		Log:    Log{Level: "info", Format: "text", SlowCommand: 5 * time.Second},
	}
	if text, err := os.ReadFile(path); err != nil || string(cfg.Text()) != string(text) {
		t.Errorf("the text is %q (%v)", cfg.Text(), err)
	}
	if cfg.text = nil; !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestWriteDefault_ExistingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odx.yaml")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if written, err := WriteDefault(path); err != nil || written {
		t.Fatalf("WriteDefault: %v, %v", written, err)
	}
	if text, _ := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("the file became %q", text)
	}
}

func TestLoad_ExampleFull(t *testing.T) {
	cfg, err := Load("examples/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	golden := LUN{Number: 0, Volume: "golden", Size: 20 << 30, BlockSize: 512, ReadOnly: true, Key: "targets[1].luns[0]"}
	if got := cfg.Targets[1].LUNs[0]; got != golden {
		t.Errorf("a shared volume: got %+v, want %+v", got, golden)
	}
	if got, want := cfg.Targets[1].LUNs[1].Backing, absolute(t, "examples/scratch.img"); got != want {
		t.Errorf("backing: got %q, want %q", got, want)
	}
	if want := (Store{Capacity: 500 << 30, Cache: 256 << 20, DedupUnit: 4 << 10, CleanIO: 64 << 20, ScrubEvery: 30 * 24 * time.Hour, ScrubIO: 32 << 20, SoftThreshold: 90, MetadataCopies: 2}); cfg.Store != want {
		t.Errorf("store: got %+v, want %+v", cfg.Store, want)
	}
	rules := []CopyRule{
		{Initiators: []NamePattern{"iqn.2026-11.com.example:backup*"}, Allow: true},
		{From: []string{"golden"}, To: []string{"system", "data"}, Allow: true},
		{From: []string{"golden"}},
	}
	if !reflect.DeepEqual(cfg.CopyRules, rules) {
		t.Errorf("copy rules: got %+v, want %+v", cfg.CopyRules, rules)
	}
	if cfg.DataDir != "/var/lib/odx" {
		t.Errorf("data_dir: got %q", cfg.DataDir)
	}
}

func TestParse_Dedup(t *testing.T) {
	const text = "data_dir: d\nportals: [\"127.0.0.1:3260\"]\n" +
		"targets: [{name: iqn.2026-11.example.odx:t, luns: [{lun: 0, volume: v, size: 1GiB}]}]\n"
	for words, want := range map[string]bool{"": false, "store: {dedup: true}\n": false, "store: {dedup: false}\n": true} {
		t.Run(words, func(t *testing.T) {
			cfg, err := Parse("odx.yaml", []byte(text+words))
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Store.StoreDuplicates != want {
				t.Errorf("%q: StoreDuplicates = %v", words, cfg.Store.StoreDuplicates)
			}
		})
	}
}

func TestLoad_ExampleContainer(t *testing.T) {
	cfg, err := Load("examples/container.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.DataDir != "/data/store" || cfg.Portals[0] != (Portal{Host: "0.0.0.0", Port: 3260, Group: 1}) {
		t.Errorf("the image exposes port 3260 and keeps its store under /data; got %+v", cfg)
	}
}

func TestLoad_MissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestLoad_HugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odx.yaml")
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var problems Problems
	if _, err := Load(path); !errors.As(err, &problems) {
		t.Errorf("got %v, want Problems", err)
	}
}

func TestConfig_Problem(t *testing.T) {
	text, err := os.ReadFile("default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse("odx.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		PortalKey(0):                "odx.yaml:9: portals[0]: taken",
		"targets[0].luns[1].size":   "odx.yaml:16: targets[0].luns[1].size: taken",
		"targets[0].luns[0].absent": "odx.yaml:15: targets[0].luns[0].absent: taken",
		"nowhere":                   "odx.yaml: nowhere: taken",
	} {
		if got := cfg.Problem(key, "taken").Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "512B": 512, "1KiB": 1 << 10, "1.5MiB": 3 << 19, "10GiB": 10 << 30, "10 GiB": 10 << 30,
		"2TiB": 2 << 40, "1PiB": 1 << 50, "7EiB": 7 << 60, "9223372036854775807": 1<<63 - 1,
		"": -1, "GiB": -1, "1GB": -1, "1gb": -1, "1g b": -1, "1G": 1 << 30, "1g": 1 << 30, "1.5T": 3 << 39, "64 k": 64 << 10, "8E": -1, "1gib": -1, "-1": -1, "+1": -1, "1e3": -1, "0x10": -1, "1,000": -1,
		"8EiB": -1, "9223372036854775808": -1, "1 GiB ": -1, "1.GiB": -1, "١GiB": -1,
	} {
		got, err := ParseSize(text)
		if (err != nil) != (want == -1) || err == nil && got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
		if err == nil {
			if back, err := ParseSize(FormatSize(got)); err != nil || back != got {
				t.Errorf("ParseSize(FormatSize(%d) = %q) = %d, %v", got, FormatSize(got), back, err)
			}
		}
	}
}

func TestParseName(t *testing.T) {
	for text, want := range map[string]string{
		"iqn.2001-04.com.example":                             "iqn.2001-04.com.example",
		"iqn.2001-04.com.example:storage.tape1.sys1.xyz":      "iqn.2001-04.com.example:storage.tape1.sys1.xyz",
		"IQN.2001-04.COM.Example:Disk-1:2":                    "iqn.2001-04.com.example:disk-1:2",
		"eui.02004567A425678D":                                "eui.02004567a425678d",
		"naa.52004567BA64678D":                                "naa.52004567ba64678d",
		"naa.62004567BA64678D0123456789ABCDEF":                "naa.62004567ba64678d0123456789abcdef",
		"iqn.2001-04.com.example:" + strings.Repeat("a", 199): "iqn.2001-04.com.example:" + strings.Repeat("a", 199),
		"iqn.2001-04.com.example:" + strings.Repeat("a", 200): "",
		"": "", "iqn": "", "iqn.": "", "iqn.2001-04": "", "iqn.2001-04.": "", "iqn.2001-00.com.example": "",
		"iqn.2001-4.com.example": "", "iqn.01-04.com.example": "", "iqn.2001-04.com..example": "", "iqn.2001-04.-com": "",
		"iqn.2001-04.com.example:": "", "iqn.2001-04.com.example:a b": "", "iqn.2001-04.com.example:a\nb": "",
		"iqn.2001-04.com.example:a\n": "", "eui.0200": "", "naa.5200": "", "wwn.1": "", "iqn.2001-04.com.example:é": "",
	} {
		got, err := ParseName(text)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("ParseName(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestParsePortal(t *testing.T) {
	for text, want := range map[string]struct{ address, network string }{
		"127.0.0.1:3260":          {"127.0.0.1:3260", "tcp4"},
		"0.0.0.0:0":               {"0.0.0.0:0", "tcp4"},
		"[::1]:3260":              {"[::1]:3260", "tcp6"},
		"[::]:3260":               {"[::]:3260", "tcp6"},
		"[FE80::1%eth0]:3260":     {"[fe80::1%eth0]:3260", "tcp6"},
		"[::ffff:127.0.0.1]:3260": {"127.0.0.1:3260", "tcp4"},
		"localhost:3260":          {"localhost:3260", "tcp"},
		"a-b.example.com:65535":   {"a-b.example.com:65535", "tcp"},
		"":                        {}, "3260": {}, ":3260": {}, "127.0.0.1": {}, "127.0.0.1:": {}, "127.0.0.1:-1": {}, "127.0.0.1:65536": {},
		"127.0.0.1:3260,1": {"127.0.0.1:3260", "tcp4"}, "[::1]:3260,65535": {"[::1]:3260", "tcp6"},
		"127.0.0.1:3260,": {}, "127.0.0.1:3260,0": {}, "127.0.0.1:3260,65536": {}, "127.0.0.1:3260,1,2": {}, "127.0.0.1,2": {},
		"127.0.0.1:+1": {}, "1.2.3:3260": {}, "1.2.3.4.5:3260": {}, "::1:3260": {}, "[::1]": {}, "[::1:3260": {}, "-a:1": {}, "a b:1": {},
	} {
		got, err := ParsePortal(text)
		if (err != nil) != (want.address == "") {
			t.Errorf("ParsePortal(%q): %v", text, err)
		}
		if err == nil && (got.String() != want.address || got.Network() != want.network) {
			t.Errorf("ParsePortal(%q) = %s %s, want %v", text, got.Network(), got, want)
		}
	}
}

// TestParse_NoSecretInProblems: problems go to the log. They do not quote what may be a
// secret in the wrong place.
func TestParse_NoSecretInProblems(t *testing.T) {
	for _, text := range []string{
		"api: seen", "api: {listen: 'a:1', secrets: seen}", "api: {listen: 'a:1', secrets: [seen]}", "api: {listen: 'a:1', secret:seen}",
		"alerts: 'https://a.example/seen'", "alerts: ['https://a.example/seen']", "alerts: [{name: a, url=https://a.example/seen}]",
		"discovery: {authentication: {users: [{name: u, secret seen}]}}", "discovery: {authentication: {users: seen}}", "discovery: seen",
	} {
		_, err := Parse("odx.yaml", []byte(minimal+text+"\n"))
		if err == nil || strings.Contains(err.Error(), "seen") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestParse_Bounds: what is no configuration takes little time, and has a short answer.
func TestParse_Bounds(t *testing.T) {
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "k%d: 1\n", i)
		}
		return b.String()
	}
	for name, tt := range map[string]struct {
		text  string
		count int
		last  string
	}{
		"as many problems as are listed": {minimal + keys(maxProblems), maxProblems, `unknown key "k499"`},
		"more problems":                  {minimal + keys(900), maxProblems + 1, "400 more problems"},
		"too many keys":                  {keys(maxFile / 10), 1, "104857 keys in one place"},
		"too many keys further down":     {minimal + "log: {" + strings.ReplaceAll(keys(maxKeys+1), "\n", ", ") + "}", 1, "1001 keys in one place"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("odx.yaml", []byte(tt.text))
			var problems Problems
			if !errors.As(err, &problems) || len(problems) != tt.count || !strings.Contains(problems[len(problems)-1].Message, tt.last) {
				t.Errorf("%d problems: %.500v", len(problems), err)
			}
		})
	}
}

// No input makes Parse panic or hang; every error is Problems that name the file, and
// an accepted Config satisfies its documented constraints.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"*.yaml", "examples/*.yaml", "testdata/bad/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte(edited))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("targets: &a [{luns: *a}]"))
	f.Add([]byte("data_dir: !!int x"))
	f.Add([]byte("? [a]\n: b"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse("odx.yaml", text)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 || problems[0].File != "odx.yaml" || problems[0].Message == "" {
				t.Errorf("error is %#v", err)
			}
			return
		}
		if d := Diff(cfg, cfg); len(d) > 0 {
			t.Errorf("differs from itself: %v", d)
		}
		checkEffective(t, cfg)
		if cfg.DataDir == "" || len(cfg.Portals) == 0 || len(cfg.Targets) == 0 {
			t.Errorf("accepted without data_dir, portals or targets: %+v", cfg)
		}
		for _, target := range cfg.Targets {
			seen := map[uint16]bool{}
			for _, l := range target.LUNs {
				media := 0
				for _, name := range []string{l.Volume, l.File, l.Backing, l.ISCSI, l.View} {
					if name != "" {
						media++
					}
				}
				if seen[l.Number] || media != 1 || l.Size%int64(l.BlockSize) != 0 {
					t.Errorf("accepted LUN %+v", l)
				}
				seen[l.Number] = true
			}
		}
		made := map[string]bool{}
		for _, v := range cfg.Views {
			for _, d := range v.Over {
				if d.View != "" && !made[d.View] {
					t.Errorf("view %+v precedes one of its devices", v)
				}
			}
			if made[v.Name] || v.Kind == "" || len(v.Over) == 0 {
				t.Errorf("accepted view %+v", v)
			}
			made[v.Name] = true
		}
	})
}
