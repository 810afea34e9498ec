package conf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Find takes the first of the places; the one in the working directory only if no other
// user can have put it there.
func TestFind(t *testing.T) {
	me := identity{uid: os.Geteuid(), group: -1}
	dir := t.TempDir()
	file := func(parts ...string) string {
		t.Helper()
		path := filepath.Join(append([]string{dir}, parts...)...)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	system, none := file("etc", "odx.yaml"), filepath.Join(dir, "none")
	for name, tt := range map[string]struct {
		prepare func(path string) error
		want    string // of the error; "" for none
	}{
		"mine":                          {func(string) error { return nil }, ""},
		"world-writable":                {func(path string) error { return os.Chmod(path, 0o646) }, "is world-writable (mode 0646)"},
		"group-writable":                {func(path string) error { return errors.Join(chownGroup(path), os.Chmod(path, 0o664)) }, "is group-writable (mode 0664)"},
		"in a world-writable directory": {func(path string) error { return os.Chmod(filepath.Dir(path), 0o757) }, "the directory "},
		"in a directory as /tmp":        {func(path string) error { return os.Chmod(filepath.Dir(path), os.ModeSticky|0o777) }, ""},
		"a link to a file":              {func(path string) error { return link(file("other", "odx.yaml"), path) }, ""},
		"a link into a world-writable directory": {func(path string) error {
			return errors.Join(link(file("open", "odx.yaml"), path), os.Chmod(filepath.Join(dir, "open"), 0o777))
		}, "the directory " + filepath.Join(dir, "open") + " is world-writable"},
		"a link over a link in a world-writable directory": {func(path string) error {
			between := file("between", "link")
			return errors.Join(link(file("other", "odx.yaml"), between), link(between, path), os.Chmod(filepath.Join(dir, "between"), 0o777))
		}, "the directory " + filepath.Join(dir, "between") + " is world-writable"},
		"a link to nothing": {func(path string) error { return link(none, path) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			here := file(strings.ReplaceAll(name, " ", "-"), "odx.yaml")
			if err := tt.prepare(here); err != nil {
				t.Fatal(err)
			}
			got, err := find("", here, system, me)
			want := here
			if name == "a link to nothing" {
				want = system
			}
			switch {
			case tt.want == "" && (err != nil || got != want):
				t.Errorf("%q, %v; want %s", got, err, want)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "use --config "+here)):
				t.Errorf("%q, %v; want an error with %q", got, err, tt.want)
			}
			if got, err := find("named", here, system, me); got != "named" || err != nil {
				t.Errorf("with a name: %q, %v", got, err)
			}
		})
	}
	if got, err := find("", none, system, me); got != system || err != nil {
		t.Errorf("not here: %q, %v", got, err)
	}
	if got, err := find("", none, none+"2", me); got != none || err != nil {
		t.Errorf("nowhere: %q, %v", got, err)
	}
	// Another user does not trust what is mine, unless I am root.
	here, other := file("mine", "odx.yaml"), identity{uid: os.Geteuid() + 1, group: -1}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chown(here, 1234, -1), os.Chown(filepath.Dir(here), 1234, -1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := find("", here, system, other); err == nil || !strings.Contains(err.Error(), "belongs to user ") {
		t.Errorf("the file of another user: %v", err)
	}
}

func link(to, path string) error { return errors.Join(os.Remove(path), os.Symlink(to, path)) }

// chownGroup gives a file a group that is not root's, if that is possible.
func chownGroup(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, -1, 1234)
}

// A file that the user's private group may write to is trusted, since the group has no
// other members.
func TestFind_PrivateGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odx.yaml")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), chownGroup(path), os.Chmod(path, 0o660)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	who := identity{uid: os.Geteuid(), group: int(info.Sys().(*syscall.Stat_t).Gid)}
	if why := who.distrusts(path); why != "" {
		t.Error(why)
	}
}
