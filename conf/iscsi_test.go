package conf

import (
	"strings"
	"testing"
)

func TestParseISCSI(t *testing.T) {
	for text, want := range map[string]string{
		"iscsi://192.0.2.1/iqn.2026-11.com.example:a/0":          "iscsi://192.0.2.1:3260/iqn.2026-11.com.example:a/0",
		"iscsi://Array:99/IQN.2026-11.com.example:A/007":         "iscsi://array:99/iqn.2026-11.com.example:a/7",
		"iscsi://[2001:db8::1]:3260/iqn.2026-11.com.example/383": "iscsi://[2001:db8::1]:3260/iqn.2026-11.com.example/383",
		"iscsi://[::1]/iqn.2026-11.com.example/1":                "iscsi://[::1]:3260/iqn.2026-11.com.example/1",
		"iscsi://[0:0::A]:03260/iqn.2026-11.com.example/1":       "iscsi://[::a]:3260/iqn.2026-11.com.example/1",
	} {
		if got, err := ParseISCSI(text); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "file:x", "iscsi://", "iscsi://a", "iscsi://a/iqn.2026-11.com.example:a", "iscsi:///iqn.2026-11.com.example:a/0", "iscsi://a:0/iqn.2026-11.com.example:a/0",
		"iscsi://a/disks/0", "iscsi://a/iqn.2026-11.com.example:a/16384", "iscsi://a/iqn.2026-11.com.example:a/-1", "iscsi://a/iqn.2026-11.com.example:a/0?x=y",
		"iscsi://u%p@a/iqn.2026-11.com.example:a/0", "iscsi://u@a/iqn.2026-11.com.example:a/0",
		"iscsi://a]b/iqn.2026-11.com.example:a/0", "iscsi://[::1/iqn.2026-11.com.example:a/0", "iscsi://a:b:c/iqn.2026-11.com.example:a/0",
	} {
		got, err := ParseISCSI(text)
		if err == nil {
			t.Errorf("%s is read as %s", text, got)
		} else if strings.Contains(err.Error(), "%p") {
			t.Errorf("%s: the error has the secret: %v", text, err)
		}
	}
}

func FuzzParseISCSI(f *testing.F) {
	f.Add("iscsi://[::1]:99/iqn.2026-11.com.example:a/7")
	f.Add("iscsi://0]0/iqn.0000-01.0/0")
	f.Add("iscsi://[0]:1]:2/iqn.0000-01.0/0")
	f.Add("iscsi://[::A]:03/iqn.0000-01.0/0")
	f.Fuzz(func(t *testing.T, text string) {
		name, err := ParseISCSI(text)
		if err != nil {
			return
		}
		if again, err := ParseISCSI(name); err != nil || again != name {
			t.Errorf("%q is read as %q, and that as %q, %v", text, name, again, err)
		}
	})
}

const foreignLUN = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example:a
    luns:
      - {lun: 0, backing: "iscsi://array/iqn.2026-11.com.example:b/3", login: {name: odx, secret_file: s, mutual: {name: array, secret_file: t}}}
`

func TestParse_ISCSI(t *testing.T) {
	cfg, err := Parse("/etc/odx.yaml", []byte(foreignLUN))
	if err != nil {
		t.Fatal(err)
	}
	l := &cfg.Targets[0].LUNs[0]
	if l.ISCSI != "iscsi://array:3260/iqn.2026-11.com.example:b/3" || l.Medium() != l.ISCSI || l.Login == nil || l.Login.Name != "odx" {
		t.Errorf("%+v", l)
	}
	if _, file, _ := l.Login.Secret.Source(); file != "/etc/s" {
		t.Errorf("secret in %q", file)
	}
	if m := l.Login.Mutual; m == nil || m.Name != "array" {
		t.Errorf("mutual: %+v", m)
	} else if _, file, _ := m.Secret.Source(); file != "/etc/t" {
		t.Errorf("secret of the target in %q", file)
	}
	for change, want := range map[[2]string]string{
		{", secret_file: t", ""}:                                              "targets[0].luns[0].login.mutual: give exactly one of secret_file",
		{"login:", "size: 1GiB, login:"}:                                      "size of iscsi://array:3260/iqn.2026-11.com.example:b/3 is its own",
		{`backing: "iscsi://array/iqn.2026-11.com.example:b/3"`, "volume: x"}: "login is for backing: iscsi://",
		{"secret_file: s, ", ""}:                                              "exactly one of secret_file",
		{"example:b/3", "example:b/x"}:                                        `"x" is not a LUN`,
		{"array/", "u%p@array/"}:                                              "invalid name \"iscsi://array",
	} {
		_, err := Parse("/etc/odx.yaml", []byte(strings.Replace(foreignLUN, change[0], change[1], 1)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", change, err, want)
		}
	}
}

func TestEdit_MoveLUN_ISCSI(t *testing.T) {
	const before = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example:a
    luns:
      - {lun: 0, volume: x, size: 1GiB} # the first
`
	move := MoveLUN{
		Target: "iqn.2026-11.example:a", To: Device{ISCSI: "iscsi://array:3260/iqn.2026-11.com.example:b/3"},
		Login: &Login{
			User:   User{Name: "odx", Secret: FileSecret("/etc/odx.secret")},
			Mutual: &User{Name: "array", Secret: EnvSecret("ARRAY")},
		},
		Identity: [16]byte{1},
	}
	text, err := Apply("/etc/odx.yaml", []byte(before), move)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse("/etc/odx.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	l := &cfg.Targets[0].LUNs[0]
	if l.ISCSI != move.To.ISCSI || l.Volume != "" || l.Size != 0 || l.Identity != move.Identity || l.Login == nil || !sameLogin(l.Login, move.Login) {
		t.Errorf("%+v of\n%s", l, text)
	}
	if !strings.Contains(string(text), "# the first") {
		t.Error("the comment is gone")
	}
}
