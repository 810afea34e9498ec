package conf

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const edited = `# The configuration of a test.
data_dir: /var/lib/odx   # local disk

portals: [ "127.0.0.1:3260" ]

targets:
    # The disks.
    -   name: iqn.2026-11.example:a

        luns:
            # the first
            - {lun: 0, volume: a, size: 1GiB}   # a

            # the second
            - lun: 1
              volume: b
              size:   '1GiB'

            # - {lun: 2, volume: c}
        authentication:
            users:
            - {name: one,   secret_file: one.secret}
            - name: two  # with a comment
              initiators: [x]
              secret: "quoted # secret"
    # The others.
    -   name: iqn.2026-11.example:b
        luns: [
            {lun: 0, volume: c}, # first
            {lun: 1, volume: d}  # second
        ]
        access:
            # backup
            - initiators: [ y ]
            # the rest
            - addresses: [192.0.2.0/24]
              read_only: true
        # end of b
    -   {name: "iqn.2026-11.example:c", luns: [{lun: 0, volume: e}, {lun: 5, volume: f}], access: [{initiators: [z]}]}

copy: {rules: [{from: [a, b*], allow: true}]}
# last line
log:
    level: info
`

// Only the lines that an edit concerns change.
func TestApply(t *testing.T) {
	const a, b, c = "iqn.2026-11.example:a", "iqn.2026-11.example:b", "iqn.2026-11.example:c"
	for name, tt := range map[string]struct {
		edit     Edit
		from, to string // what is replaced in the text
	}{
		"a LUN, after flow and block entries": {AddLUN{a, LUN{Number: 7, Volume: "g", Size: 2 << 30, BlockSize: 4096}},
			"'1GiB'\n", "'1GiB'\n            - lun: 7\n              volume: g\n              size: 2GiB\n              block_size: 4096\n"},
		"a LUN in brackets of several lines": {AddLUN{b, LUN{Number: 7, File: "x/y.vhdx", BlockSize: 512, ReadOnly: true}},
			"{lun: 1, volume: d}", "{lun: 1, volume: d}, {lun: 7, file: x/y.vhdx, read_only: true}"},
		"a LUN in brackets": {AddLUN{c, LUN{Number: 7, Backing: "/srv/x", BlockSize: 512}},
			"{lun: 5, volume: f}", `{lun: 5, volume: f}, {lun: 7, backing: "file:/srv/x"}`},
		"no LUN, the first":                              {RemoveLUN{a, 0}, "            - {lun: 0, volume: a, size: 1GiB}   # a\n", ""},
		"no LUN, the last":                               {RemoveLUN{a, 1}, "            - lun: 1\n              volume: b\n              size:   '1GiB'\n", ""},
		"no LUN in brackets, the first":                  {RemoveLUN{c, 0}, "{lun: 0, volume: e}, ", ""},
		"no LUN in brackets, the last":                   {RemoveLUN{c, 5}, ", {lun: 5, volume: f}", ""},
		"no LUN in brackets of several lines, the first": {RemoveLUN{b, 0}, "            {lun: 0, volume: c}, # first", "            # first"},
		"a target": {AddTarget{Name: "iqn.2026-11.example:D", LUNs: []LUN{{Number: 0, Volume: "g", Size: 1 << 30, BlockSize: 512}}, PortalGroups: []uint16{1}},
			"access: [{initiators: [z]}]}\n", `access: [{initiators: [z]}]}` + `
    - name: "iqn.2026-11.example:d"
      luns:
        - {lun: 0, volume: g, size: 1GiB}
      portal_groups: [1]
`},
		"no target, the second":  {RemoveTarget{b}, edited[strings.Index(edited, "    -   name: iqn.2026-11.example:b"):strings.Index(edited, "        # end of b")], ""},
		"no target, in brackets": {RemoveTarget{c}, edited[strings.Index(edited, "    -   {name"):strings.Index(edited, "\ncopy")], ""},
		"a user": {AddUser{a, User{Name: "three", Secret: FileSecret("three.secret"), Initiators: []NamePattern{"iqn.2026-11.example:*"}}},
			"\"quoted # secret\"\n", "\"quoted # secret\"\n            - name: three\n              secret_file: three.secret\n              initiators: [\"iqn.2026-11.example:*\"]\n"},
		"a user of discovery": {AddUser{"", User{Name: "three", Secret: EnvSecret("THREE")}},
			"    level: info\n", "    level: info\ndiscovery:\n  authentication:\n    users:\n      - {name: three, secret_env: THREE}\n"},
		"a first user": {AddUser{b, User{Name: "three", Secret: InlineSecret("x: # y")}},
			"              read_only: true\n", "              read_only: true\n        authentication:\n          users:\n            - {name: three, secret: \"x: # y\"}\n"},
		"a first user, in brackets": {AddUser{c, User{Name: "three", Secret: EnvSecret("THREE")}},
			"[{initiators: [z]}]}", "[{initiators: [z]}], authentication: {users: [{name: three, secret_env: THREE}]}}"},
		"a secret of a user, in brackets": {SetUser{Target: a, Name: "one", Secret: new(FileSecret("new.secret"))}, "one.secret", "new.secret"},
		"a secret of a user":              {SetUser{Target: a, Name: "two", Secret: new(InlineSecret("another"))}, "\"quoted # secret\"", "another"},
		"a secret of a user, from elsewhere": {SetUser{Target: a, Name: "two", Secret: new(FileSecret("two.secret"))},
			"              secret: \"quoted # secret\"\n", "              secret_file: two.secret\n"},
		"initiators of a user":            {SetUser{Target: a, Name: "two", Initiators: &[]NamePattern{"y", "z"}}, "[x]", "[y, z]"},
		"initiators of a user, the first": {SetUser{Target: a, Name: "one", Initiators: &[]NamePattern{"y"}}, "one.secret}", "one.secret, initiators: [y]}"},
		"initiators of a user, none":      {SetUser{Target: a, Name: "two", Initiators: &[]NamePattern{}}, "              initiators: [x]\n", ""},
		"no user":                         {RemoveUser{a, "one"}, "            - {name: one,   secret_file: one.secret}\n", ""},
		"access, at the end": {AddAccess{b, Access{Initiators: []NamePattern{"x"}}, -1},
			"              read_only: true\n", "              read_only: true\n            - initiators: [x]\n"},
		"access, at the beginning": {AddAccess{b, Access{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}, LUNs: []MappedLUN{{LUN: 1, As: 0}, {LUN: 0, As: 1, ReadOnly: true}}}, 0},
			"            # backup\n", "            - addresses: [192.0.2.7]\n              luns:\n                - {lun: 1, as: 0}\n                - {lun: 0, as: 1, read_only: true}\n            # backup\n"},
		"access, in brackets": {AddAccess{c, Access{Initiators: []NamePattern{"x"}}, 0}, "[{initiators: [z]}]", "[{initiators: [x]}, {initiators: [z]}]"},
		"no access":           {RemoveAccess{b, 0}, "            - initiators: [ y ]\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for end, text := range map[string]string{"LF": edited, "CRLF": strings.ReplaceAll(edited, "\n", "\r\n")} {
				if strings.Count(edited, tt.from) != 1 && tt.from != "" {
					t.Fatalf("%q is in the text %d times", tt.from, strings.Count(edited, tt.from))
				}
				want := strings.Replace(edited, tt.from, tt.to, 1)
				if end == "CRLF" {
					want = strings.ReplaceAll(want, "\n", "\r\n")
				}
				got, err := Apply("/etc/odx/odx.yaml", []byte(text), tt.edit)
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != want {
					t.Errorf("%s: %s", end, lineDiff(want, string(got)))
				}
			}
		})
	}
}

// lineDiff returns the lines of got that differ from want.
func lineDiff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for len(w) > 0 && len(g) > 0 && w[0] == g[0] {
		w, g = w[1:], g[1:]
	}
	for len(w) > 0 && len(g) > 0 && w[len(w)-1] == g[len(g)-1] {
		w, g = w[:len(w)-1], g[:len(g)-1]
	}
	return "want\n" + strings.Join(w, "\n") + "\ngot\n" + strings.Join(g, "\n")
}

func TestApply_Refused(t *testing.T) {
	const a, b = "iqn.2026-11.example:a", "iqn.2026-11.example:b"
	const aliased = `data_dir: d
portals: ["127.0.0.1:3260"]
targets:
  - {name: iqn.2026-11.example:a, luns: &l [{lun: 0, volume: &v a}, {lun: 1, volume: b}], access: &x [{initiators: [y]}, {initiators: [z]}]}
  - {name: iqn.2026-11.example:b, luns: [{lun: 0, volume: c}, {lun: 1, file: *v}], access: *x}
copy: {rules: [{from: [*v], allow: true}]}
`
	for name, tt := range map[string]struct {
		text string
		edit Edit
		is   error // nil: Problems or a Problem
		want string
	}{
		"a LUN that exists":          {edited, AddLUN{a, LUN{Number: 1, Volume: "x", BlockSize: 512}}, ErrExists, "LUN 1 of target " + a + " exists already"},
		"no such LUN":                {edited, RemoveLUN{a, 9}, ErrNotFound, "LUN 9 of target " + a + " does not exist"},
		"no such target":             {edited, RemoveLUN{"iqn.2026-11.example:x", 0}, ErrNotFound, "target iqn.2026-11.example:x does not exist"},
		"a target that exists":       {edited, AddTarget{Name: strings.ToUpper(a)}, ErrExists, "target " + a + " exists already"},
		"a target without LUNs":      {edited, AddTarget{Name: "iqn.2026-11.example:n"}, nil, "targets[3].luns: missing; give at least one LUN"},
		"a LUN that is not valid":    {edited, AddLUN{a, LUN{Number: 2, Volume: "no name", BlockSize: 512}}, nil, `targets[0].luns[2].volume: LUN 2: invalid volume name "no name"`},
		"a LUN with two media":       {edited, AddLUN{a, LUN{Number: 2, Volume: "x", File: "y", BlockSize: 512}}, nil, "more than one of volume, file"},
		"the last LUN":               {`data_dir: d` + "\n" + `portals: ["a:1"]` + "\n" + `targets: [{name: iqn.2026-11.example:a, luns: [{lun: 0, volume: v}]}]`, RemoveLUN{a, 0}, nil, "a target has at least one LUN; remove the target instead"},
		"a user that exists":         {edited, AddUser{a, User{Name: "one", Secret: EnvSecret("X")}}, ErrExists, "user one of target " + a + " exists already"},
		"no such user":               {edited, RemoveUser{a, "three"}, ErrNotFound, "user three of target " + a + " does not exist"},
		"no such user of discovery":  {edited, SetUser{Target: "", Name: "x"}, nil, ""},
		"the last user":              {strings.Replace(edited, "            - {name: one,   secret_file: one.secret}\n", "", 1), RemoveUser{a, "two"}, nil, "user two is the last one"},
		"no such access":             {edited, RemoveAccess{b, 2}, ErrNotFound, "entry 2 of the access list of target " + b + " does not exist"},
		"the last access":            {edited, RemoveAccess{"iqn.2026-11.example:c", 0}, nil, "the entry is the last one"},
		"a file that is not valid":   {edited + "colour: red\n", RemoveLUN{a, 0}, nil, "unknown key"},
		"UTF-16":                     {"\xFE\xFF" + utf16(minimal), RemoveLUN{a, 0}, nil, "is in UTF-16"},
		"an alias":                   {aliased, RemoveAccess{b, 0}, nil, "line 5: cannot be edited: it also is the value at line 4 (alias *x)"},
		"what an alias stands for":   {aliased, RemoveAccess{a, 0}, nil, "line 4: cannot be edited: it also is the value at line 5 (alias *x)"},
		"what contains what is used": {aliased, RemoveLUN{a, 0}, nil, "line 4: cannot be removed: line 5 uses it (alias *v)"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no such user of discovery" {
				tt.edit, tt.is, tt.want = SetUser{Name: "x", Secret: new(EnvSecret("X"))}, ErrNotFound, "user x of discovery does not exist"
			}
			got, err := Apply("odx.yaml", []byte(tt.text), tt.edit)
			var problems Problems
			var problem Problem
			switch {
			case err == nil:
				t.Fatalf("accepted:\n%s", got)
			case tt.is != nil && !errors.Is(err, tt.is):
				t.Errorf("error %v, want %v", err, tt.is)
			case tt.is == nil && !errors.As(err, &problems) && !errors.As(err, &problem):
				t.Errorf("error %#v is no problem", err)
			}
			where, what, _ := strings.Cut(tt.want, ": cannot")
			if line, ok := strings.CutPrefix(where, "line "); ok {
				tt.want = "odx.yaml:" + line + ": cannot" + what
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// utf16 returns ASCII text in UTF-16, with the high byte first.
func utf16(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		b.Write([]byte{0, c})
	}
	return b.String()
}

// Edits follow each other: each sees the text after the ones before.
func TestApply_Several(t *testing.T) {
	const a = "iqn.2026-11.example:a"
	got, err := Apply("odx.yaml", []byte(edited), AddLUN{a, LUN{Number: 7, Volume: "g", BlockSize: 512}}, RemoveLUN{a, 0}, RemoveLUN{a, 1}, RemoveLUN{a, 7}, RemoveTarget{a})
	if err == nil {
		t.Errorf("the last LUN was removed:\n%s", got)
	}
	got, err = Apply("odx.yaml", []byte(edited), AddLUN{a, LUN{Number: 7, Volume: "g", BlockSize: 512}}, RemoveLUN{a, 7})
	if err != nil || string(got) != edited {
		t.Errorf("%v: %s", err, lineDiff(edited, string(got)))
	}
}

// Where the lines of an entry cannot be told from others, the whole file is written out:
// values, order and comments stay, but not blank lines, alignment and indentation.
func TestApply_WrittenOut(t *testing.T) {
	const before = `data_dir:   /d   # local

portals: ["127.0.0.1:1"]

targets:
    - name: iqn.2026-11.example:a
      # the disks
      luns: [ {lun: 0,  volume: a} ]
      authentication:
          users:
              - secret: one
                name: u        # the user
`
	const want = `data_dir: /d # local
portals: ["127.0.0.1:1"]
targets:
  - name: iqn.2026-11.example:a
    # the disks
    luns: [{lun: 0, volume: a}]
    authentication:
      users:
        - name: u # the user
          secret_env: U
`
	got, err := Apply("odx.yaml", []byte(before), SetUser{Target: "iqn.2026-11.example:a", Name: "u", Secret: new(EnvSecret("U"))})
	if err != nil || string(got) != want {
		t.Errorf("%v: %s", err, lineDiff(want, string(got)))
	}
}

// Every comment of the example stays, whatever entry is removed, but those within the entry.
func TestApply_Example(t *testing.T) {
	text := full(t)
	cfg := parsed(t, text)
	for _, target := range cfg.Targets {
		for _, l := range target.LUNs {
			if len(target.LUNs) == 1 {
				continue
			}
			got, err := Apply(cfg.File, []byte(text), RemoveLUN{target.Name, l.Number})
			if err != nil {
				continue // something refers to it
			}
			if n := removedLines(text, string(got)); len(n) != 1 || !strings.Contains(n[0], "lun: ") {
				t.Errorf("LUN %d of %s: removed %q", l.Number, target.Name, n)
			}
		}
	}
}

// removedLines returns the lines of before that are not in after.
func removedLines(before, after string) (gone []string) {
	left := strings.Split(after, "\n")
	for line := range strings.SplitSeq(before, "\n") {
		if i := slices.Index(left, line); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			gone = append(gone, line)
		}
	}
	return gone
}
