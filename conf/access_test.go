package conf

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestLoad_ExampleSecurity(t *testing.T) {
	cfg, err := Load("examples/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := cfg.Targets[0].Authentication
	if !a.Required || len(a.Users) != 2 || a.Mutual == nil || a.Mutual.Name != "disks" ||
		!reflect.DeepEqual(a.Algorithms, []string{"SHA3-256", "SHA256", "SHA1", "MD5"}) {
		t.Errorf("authentication: got %+v", a)
	}
	if s := a.Users[0].Secret; s.text != absolute(t, "examples/host1.secret") || s.source != secretFile || s.Key != "targets[0].authentication.users[0].secret_file" {
		t.Errorf("a secret in a file relative to the configuration: %q, %q", s.text, s.Key)
	}
	if u := a.Users[0]; !u.Allows("iqn.2026-11.com.example:host1") || u.Allows("iqn.2026-11.com.example:host2") || !a.Users[1].Allows("any") {
		t.Error("who may use the names")
	}
	list := cfg.Targets[0].Access
	want := []MappedLUN{{LUN: 1, As: 0}, {LUN: 2, As: 1, ReadOnly: true}}
	if len(list) != 3 || !reflect.DeepEqual(list[1].LUNs, want) || list[0].LUNs != nil || !list[2].ReadOnly {
		t.Errorf("access: got %+v", list)
	}
	if d := cfg.DiscoveryAuthentication; len(d.Users) != 1 || !d.Required {
		t.Errorf("discovery: got %+v", d)
	}
	if other := cfg.Targets[1]; len(other.Authentication.Users) != 0 || other.Access != nil {
		t.Errorf("a target without security: got %+v", other)
	}
}

func TestAccess_Matches(t *testing.T) {
	for _, c := range []struct {
		entry           string
		initiator, from string
		want            bool
	}{
		{`initiators: ["iqn.2026-11.com.example:a"]`, "iqn.2026-11.com.example:a", "192.0.2.1", true},
		{`initiators: ["IQN.2026-11.com.example:A"]`, "iqn.2026-11.com.example:a", "192.0.2.1", true},
		{`initiators: ["iqn.2026-11.com.example:a"]`, "iqn.2026-11.com.example:ab", "192.0.2.1", false},
		{`initiators: ["iqn.2026-11.com.example:a*"]`, "iqn.2026-11.com.example:ab", "192.0.2.1", true},
		{`initiators: ["iqn.2026-11.com.example:a*"]`, "iqn.2026-11.com.example:ba", "192.0.2.1", false},
		{`initiators: ["eui.02004567A425678D", "*"]`, "iqn.2026-11.com.example:x", "192.0.2.1", true},
		{`addresses: [192.0.2.0/24, 2001:db8::1]`, "iqn.2026-11.com.example:x", "192.0.2.255", true},
		{`addresses: [192.0.2.0/24, 2001:db8::1]`, "iqn.2026-11.com.example:x", "192.0.3.1", false},
		{`addresses: [192.0.2.0/24, 2001:db8::1]`, "iqn.2026-11.com.example:x", "2001:db8::1", true},
		{`addresses: [192.0.2.0/24, 2001:db8::1]`, "iqn.2026-11.com.example:x", "2001:db8::2", false},
		{`addresses: ["::ffff:192.0.2.1"]`, "iqn.2026-11.com.example:x", "192.0.2.1", true},
		{`initiators: ["*"], addresses: [192.0.2.1]`, "iqn.2026-11.com.example:x", "192.0.2.2", false},
		{`initiators: ["iqn.2026-11.com.example:a"], addresses: [192.0.2.1]`, "iqn.2026-11.com.example:x", "192.0.2.1", false},
		{`initiators: ["iqn.2026-11.com.example:a"], addresses: [192.0.2.1]`, "iqn.2026-11.com.example:a", "192.0.2.1", true},
	} {
		t.Run(c.entry+" "+c.initiator+" "+c.from, func(t *testing.T) {
			text := fmt.Sprintf("data_dir: d\nportals: [\"127.0.0.1:3260\"]\ntargets: [{name: iqn.2026-11.example.odx:t, "+
				"luns: [{lun: 0, volume: v, size: 1GiB}], access: [{%s}]}]\n", c.entry)
			cfg, err := Parse("odx.yaml", []byte(text))
			if err != nil {
				t.Errorf("%s: %v", c.entry, err)
				return
			}
			if got := cfg.Targets[0].Access[0].Matches(c.initiator, netip.MustParseAddr(c.from)); got != c.want {
				t.Errorf("%s: %s from %s: %v", c.entry, c.initiator, c.from, got)
			}
		})
	}
	networks := Access{Addresses: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
	if networks.Matches("iqn.2026-11.com.example:x", netip.Addr{}) {
		t.Error("a peer without an IP address matches a network")
	}
}

// TestSecret_Read_Quotes: quotes around a secret belong to it, and a warning says so.
func TestSecret_Read_Quotes(t *testing.T) {
	const warned = ": the quotes around the secret are part of it; remove them unless the other side's secret has them too"
	path := filepath.Join(t.TempDir(), "quoted")
	for text, want := range map[string]string{
		`"what must not be seen"`: warned,
		`'what must not be seen'`: warned,
		`"what must not be seen'`: "",
		`"what must not be seen`:  "",
		`what "must" not be seen`: "",
		`"`:                       "",
	} {
		t.Setenv("ODX_TEST_SECRET", text)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for where, s := range map[string]Secret{
			path:                                   {source: secretFile, text: path},
			"environment variable ODX_TEST_SECRET": {source: secretEnv, text: "ODX_TEST_SECRET"},
		} {
			warning := want
			if want != "" {
				warning = where + want
			}
			if got, said, err := s.Read(); err != nil || string(got) != text || said != warning {
				t.Errorf("%s in %s: %q, warning %q, %v", text, where, got, said, err)
			}
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, said, err := ReadSecretFile(path); err != nil || !strings.Contains(said, "world-readable") || !strings.HasSuffix(said, want) {
			t.Errorf("%s, readable by all: warning %q, %v", text, said, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Neither an error nor a formatted value contains the secret.
func TestSecret_Read(t *testing.T) {
	const secret = "what must not be seen"
	dir := t.TempDir()
	file := func(name string, mode os.FileMode, text string) Secret {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return Secret{source: secretFile, text: path}
	}
	t.Setenv("ODX_TEST_SECRET", secret)
	t.Setenv("ODX_TEST_SECRET_BLANK", secret+" ")
	for what, c := range map[string]struct {
		s             Secret
		warning, fail string
	}{
		"inline":              {Secret{source: secretInline, text: secret}, "is in the configuration", ""},
		"environment":         {Secret{source: secretEnv, text: "ODX_TEST_SECRET"}, "", ""},
		"no variable":         {Secret{source: secretEnv, text: "ODX_TEST_NO_SECRET"}, "", "is not set"},
		"file":                {file("plain", 0o600, secret), "", ""},
		"file with a line":    {file("line", 0o640, secret+"\n"), "", ""},
		"file of Windows":     {file("crlf", 0o400, secret+"\r\n"), "", ""},
		"world-readable":      {file("read", 0o644, secret+"\n"), "world-readable", ""},
		"world-writable":      {file("write", 0o602, secret+"\n"), "", "world-writable"},
		"two lines":           {file("lines", 0o600, secret+"\n\n"), "", "more than one line"},
		"not a secret at all": {file("long", 0o600, strings.Repeat("a", 1025)), "", "exceeds 1024"},
		"no file":             {Secret{source: secretFile, text: filepath.Join(dir, "none")}, "", "no such file"},
		"UTF-8 mark":          {file("utf8", 0o600, "\xEF\xBB\xBF"+secret+"\n"), "", "byte order mark (UTF-8)"},
		"UTF-16":              {file("utf16", 0o600, "\xFF\xFEw\x00h\x00"), "", "byte order mark (UTF-16)"},
		"UTF-16, other end":   {file("utf16be", 0o600, "\xFE\xFF\x00w\x00h"), "", "byte order mark (UTF-16)"},
		"UTF-16, no mark":     {file("utf16no", 0o600, "w\x00h\x00"), "", "zero bytes"},
		"blank at the end":    {file("blank", 0o600, secret+" \n"), "", "ends with white space"},
		"tab at the end":      {file("tab", 0o600, secret+"\t\r\n"), "", "ends with white space"},
		"no-break space":      {file("nbsp", 0o600, secret+"\u00a0"), "", "ends with white space"},
		"blank at the start":  {file("start", 0o600, " "+secret+"\n"), "", "starts with white space"},
		"only blanks":         {file("blanks", 0o600, "   \n"), "", "only white space"},
		"blank in a variable": {Secret{source: secretEnv, text: "ODX_TEST_SECRET_BLANK"}, "", "ends with white space"},
		"a directory":         {Secret{source: secretFile, text: dir}, "", "not a regular file"},
	} {
		t.Run(what, func(t *testing.T) {
			got, warning, err := c.s.Read()
			switch {
			case c.fail != "":
				if err == nil || !strings.Contains(err.Error(), c.fail) || strings.Contains(err.Error(), secret) {
					t.Errorf("%s: error %v, want %s", what, err, c.fail)
				}
			case err != nil || string(got) != secret || !strings.Contains(warning, c.warning) || (warning == "") != (c.warning == ""):
				t.Errorf("%s: %q, warning %q, error %v", what, got, warning, err)
			}
		})
	}
	shown := fmt.Sprintf("%v %+v %#v %s", Config{Targets: []Target{{Authentication: Authentication{Users: []User{{Secret: Secret{text: secret}}}}}}},
		User{Secret: Secret{text: secret}}, Secret{text: secret}, Secret{text: secret})
	if strings.Contains(shown, secret) {
		t.Errorf("the secret is printed: %s", shown)
	}
}

// Patterns accept every name that can log in, also one that RFC 7143 does not allow,
// and convert it to lower case. Obvious mistakes are refused.
func TestParseNamePattern(t *testing.T) {
	for text, want := range map[string]NamePattern{
		"my_host":                          "my_host",
		"iqn.2015-1.com.example:x":         "iqn.2015-1.com.example:x",
		"IQN.2026-11.com.Example:A_b":      "iqn.2026-11.com.example:a_b",
		"iqn.2026-11.com.example:räume":    "iqn.2026-11.com.example:räume",
		"host/1+2":                         "host/1+2",
		"iqn.2026-11.com.example:my_host*": "iqn.2026-11.com.example:my_host*",
		"*":                                "*",
	} {
		if got, err := ParseNamePattern(text); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "two words", "tab\t", "a*b", "**", "\xff", "iqn.2026-11.com.example:" + strings.Repeat("x", 200)} {
		if got, err := ParseNamePattern(text); err == nil {
			t.Errorf("%q accepted as %q", text, got)
		}
	}
}

// The advice leaves the file readable by the server's user.
func TestProtect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	uid, gid := int(st.Uid), int(st.Gid)
	for what, tt := range map[string]struct {
		uid  int
		gids []int
		want string
	}{
		"the server's file":         {uid, nil, "restrict it with chmod 600"},
		"root":                      {0, nil, "restrict it with chmod 600"},
		"a file of its group":       {54321, []int{7, gid}, "restrict it with chmod 640"},
		"another user's":            {54321, []int{gid + 1}, "restrict it with chown 54321 and chmod 600"},
		"another user's, with name": {1, []int{gid + 1}, "restrict it with chown " + userName(1) + " and chmod 600"},
	} {
		t.Run(what, func(t *testing.T) {
			if got := protect(info, tt.uid, tt.gids); got != tt.want && !(uid == 1 && tt.uid == 1) {
				t.Errorf("%s: %q, want %q", what, got, tt.want)
			}
		})
	}
}
