package conf

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// editOf returns an edit that fits a configuration, and the keys that it may change: those
// that begin with prefix. removes reports whether it takes something away, and with it the
// comments within.
func editOf(cfg *Config, kind, which uint8) (e Edit, prefix string, removes bool) {
	t := &cfg.Targets[int(which)%len(cfg.Targets)]
	at := "targets[" + t.Name + "]"
	number := uint16(which)
	if len(t.LUNs) > 0 {
		number = t.LUNs[int(which)%len(t.LUNs)].Number
	}
	user := "fuzzed"
	if n := len(t.Authentication.Users); n > 0 {
		user = t.Authentication.Users[int(which)%n].Name
	}
	switch kind % 11 {
	case 0:
		return AddTarget{Name: "iqn.2026-11.example:fuzzed", LUNs: []LUN{{Number: 3, Volume: "fuzzed", BlockSize: 512}}}, "targets[iqn.2026-11.example:fuzzed]", false
	case 1:
		return RemoveTarget{t.Name}, at, true
	case 2:
		return AddLUN{t.Name, LUN{Number: uint16(which) * 11, File: "fuzzed/a: b #.vhdx", Size: 1 << 30, BlockSize: 4096}}, at + ".luns", false
	case 3:
		return RemoveLUN{t.Name, number}, at + ".luns", true
	case 4:
		return AddUser{t.Name, User{Name: "fuzzed", Secret: InlineSecret("a: # b")}}, at + ".authentication", false
	case 5:
		return AddUser{"", User{Name: "fuzzed", Secret: FileSecret("/x y")}}, "discovery.authentication", false
	case 6:
		return SetUser{Target: t.Name, Name: user, Secret: new(EnvSecret("FUZZED"))}, at + ".authentication", true
	case 7:
		return SetUser{Target: t.Name, Name: user, Initiators: &[]NamePattern{"fuzzed*"}}, at + ".authentication", true
	case 8:
		return RemoveUser{t.Name, user}, at + ".authentication", true
	case 9:
		return AddAccess{t.Name, Access{Initiators: []NamePattern{"fuzzed"}, ReadOnly: true}, int(which%5) - 1}, at + ".access", false
	default:
		return RemoveAccess{t.Name, int(which) % max(1, len(t.Access))}, at + ".access", true
	}
}

// FuzzApply: an edit of a valid file gives a valid file that differs in what was asked only,
// with the comments, or a typed error.
func FuzzApply(f *testing.F) {
	for _, pattern := range []string{"*.yaml", "examples/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			for kind := range uint8(11) {
				f.Add(text, kind, kind)
				f.Add([]byte(strings.ReplaceAll(edited, "\n", "\r\n")), kind, kind)
				f.Add([]byte(edited), kind, uint8(0))
				f.Add([]byte(edited), kind, uint8(1))
				f.Add([]byte(edited), kind, uint8(2))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, kind, which uint8) {
		cfg, err := Parse("/etc/odx.yaml", text)
		if err != nil {
			return
		}
		e, prefix, removes := editOf(cfg, kind, which)
		after, err := Apply(cfg.File, text, e)
		if err != nil {
			var problem Problem
			var problems Problems
			if !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound) && !errors.As(err, &problem) && !errors.As(err, &problems) {
				t.Errorf("%#v: error %#v", e, err)
			}
			return
		}
		next, err := Parse(cfg.File, after)
		if err != nil {
			t.Fatalf("%#v: %v\n%s", e, err, after)
		}
		d := Diff(cfg, next)
		for _, c := range d {
			if !strings.HasPrefix(c.Key, prefix) {
				t.Errorf("%#v changed %s\n%s", e, c, after)
			}
		}
		if len(d) == 0 && kind%11 != 6 && kind%11 != 7 {
			t.Errorf("%#v changed nothing\n%s", e, after)
		}
		if !removes {
			checkComments(t, text, after)
		}
	})
}

// checkComments checks that each comment is in the text after an edit.
func checkComments(t *testing.T, before, after []byte) {
	t.Helper()
	left := comments(t, after)
	for _, c := range comments(t, before) {
		if i := slices.Index(left, c); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			t.Errorf("comment %q is lost:\n%s", c, after)
		}
	}
}

// comments returns the lines of all comments, as the library reads them.
func comments(t *testing.T, text []byte) (lines []string) {
	t.Helper()
	root, err := parseTree(text)
	if err != nil {
		t.Fatal(err)
	}
	var visit func(n *yaml.Node)
	visit = func(n *yaml.Node) {
		for _, c := range []string{n.HeadComment, n.LineComment, n.FootComment} {
			for line := range strings.SplitSeq(c, "\n") {
				if line = strings.TrimSpace(line); line != "" {
					lines = append(lines, line)
				}
			}
		}
		for _, c := range n.Content {
			visit(c)
		}
	}
	visit(root)
	return lines
}
