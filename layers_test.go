// Package odx_test checks what holds for the module as a whole.
package odx_test

import (
	"bufio"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// designDoc has the table of packages: package, what it is for, what it may import.
const designDoc = "docs/design.md"

// tableHead is the first line of the table of packages.
const tableHead = "| package | what it is for | may import |"

// module is the import path that all packages of this module begin with.
const module = "odx/"

// row is a row of the table of packages.
type row struct {
	line    int    // of designDoc, from 1
	pattern string // a package, or "dir/…" for all packages in and below dir
	use     string
	imports []string // packages or patterns
}

// matches reports whether pattern names pkg.
func matches(pattern, pkg string) bool {
	dir, all := strings.CutSuffix(pattern, "/…")
	return pkg == dir || all && strings.HasPrefix(pkg, dir+"/")
}

// String returns the row as it is written in the table.
func (r row) String() string {
	imports := "–"
	if len(r.imports) > 0 {
		imports = "`" + strings.Join(r.imports, "`, `") + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s |", r.pattern, r.use, imports)
}

// TestLayers compares the table of packages with the imports of the source: each
// package has one row, imports just what its row says (a leaf, "–", nothing), and
// every import points at a row further down, so there is no cycle.
func TestLayers(t *testing.T) {
	f, err := os.Open(designDoc)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := readTable(f)
	if err != nil {
		t.Fatal(err)
	}
	imports, err := readImports(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range compare(rows, imports) {
		t.Error(problem)
	}
}

// compare returns what is wrong with rows, or with the imports of the packages.
func compare(rows []row, packages map[string][]string) (problems []string) {
	used := make([][]string, len(rows)) // by the packages of the row, as they are
	found := make([]bool, len(rows))
	for _, pkg := range sortedKeys(packages) {
		i := rowOf(rows, pkg)
		if i < 0 {
			problems = append(problems, fmt.Sprintf("%s: package %s has no row; add this one above all that it imports:\n\t%s",
				designDoc, pkg, row{pattern: pkg, use: "WHAT IT IS FOR", imports: packages[pkg]}))
			continue
		}
		found[i] = true
		used[i] = append(used[i], packages[pkg]...)
	}
	for i, r := range rows {
		at := fmt.Sprintf("%s:%d: row of %s", designDoc, r.line, r.pattern)
		switch {
		case rowOf(rows, r.pattern) != i && rowOf(rows, strings.TrimSuffix(r.pattern, "/…")) != i:
			problems = append(problems, at+": an earlier row names the same package; remove one")
			continue
		case !found[i]:
			problems = append(problems, at+": there is no such package; remove the row")
			continue
		}
		for _, to := range used[i] {
			if j := rowOf(rows, to); j >= 0 && j < i {
				problems = append(problems, fmt.Sprintf("%s: imports %s, whose row is above it (line %d): imports go downwards only; remove the import, or move one of the rows",
					at, to, rows[j].line))
			}
		}
		if fixed, why := correct(r, used[i]); why != "" {
			problems = append(problems, fmt.Sprintf("%s: %s; if that is meant, the row is:\n\t%s", at, why, fixed))
		}
	}
	return problems
}

// correct returns the row with the imports that its packages have, and what is
// wrong with it, "" for nothing.
func correct(r row, used []string) (fixed row, why string) {
	allowed := func(patterns []string, pkg string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
	}
	var problems []string
	fixed = r
	fixed.imports = slices.DeleteFunc(slices.Clone(r.imports), func(p string) bool {
		unused := !slices.ContainsFunc(used, func(pkg string) bool { return matches(p, pkg) })
		if unused {
			problems = append(problems, "does not import "+p)
		}
		return unused
	})
	for _, pkg := range used {
		if !allowed(fixed.imports, pkg) {
			problems = append(problems, "may not import "+pkg)
			fixed.imports = append(fixed.imports, pkg)
		}
	}
	slices.Sort(fixed.imports)
	return fixed, strings.Join(problems, ", ")
}

// rowOf returns the index of the first row that names pkg, -1 for none.
func rowOf(rows []row, pkg string) int {
	return slices.IndexFunc(rows, func(r row) bool { return matches(r.pattern, pkg) })
}

var backquoted = regexp.MustCompile("`([^`]+)`")

// readTable reads the table of packages.
func readTable(f *os.File) ([]row, error) {
	var rows []row
	lines := bufio.NewScanner(f)
	inTable := false
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case line == tableHead:
			inTable = true
			continue
		case !inTable || strings.HasPrefix(line, "|---"):
			continue
		case !strings.HasPrefix(line, "|"):
			return rows, lines.Err()
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if len(cells) != 3 {
			return nil, fmt.Errorf("%s:%d: a row has three cells: %s", f.Name(), n, tableHead)
		}
		name := backquoted.FindStringSubmatch(cells[0])
		if name == nil {
			return nil, fmt.Errorf("%s:%d: the first cell is a package in back quotes", f.Name(), n)
		}
		r := row{line: n, pattern: name[1], use: strings.TrimSpace(cells[1])}
		for _, m := range backquoted.FindAllStringSubmatch(cells[2], -1) {
			r.imports = append(r.imports, m[1])
		}
		rows = append(rows, r)
	}
	if !inTable {
		return nil, fmt.Errorf("%s: there is no table that begins %q", f.Name(), tableHead)
	}
	return rows, lines.Err()
}

// readImports returns the packages of this module below dir, without the root, and
// which packages of the module each of them imports, on any platform and with any
// build tag, tests apart. It parses the files itself, because go test caches the
// result of a test by the files that it opens, and does not see those of go list.
func readImports(dir string) (map[string][]string, error) {
	packages := map[string][]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || name != dir && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		pkg := path.Dir(filepath.ToSlash(name))
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if _, ok := packages[pkg]; !ok {
			packages[pkg] = nil
		}
		for _, spec := range file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if to, ok := strings.CutPrefix(to, module); ok && !slices.Contains(packages[pkg], to) {
				packages[pkg] = append(packages[pkg], to)
			}
		}
		slices.Sort(packages[pkg])
		return nil
	})
	return packages, err
}

func sortedKeys(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// TestCompare holds what TestLayers reports for each kind of mistake.
func TestCompare(t *testing.T) {
	rows := []row{
		{line: 1, pattern: "a", use: "top", imports: []string{"b", "c"}},
		{line: 2, pattern: "b", use: "middle", imports: []string{"c"}},
		{line: 3, pattern: "c", use: "leaf"},
		{line: 4, pattern: "x/…", use: "tools", imports: []string{"x/…"}},
	}
	for name, tt := range map[string]struct {
		pkg     string
		imports []string
		want    string // part of the one problem, "" for none
	}{
		"right":                {"b", []string{"c"}, ""},
		"import not allowed":   {"a", []string{"b", "c", "x/y"}, "docs/design.md:1: row of a: may not import x/y; if that is meant, the row is:\n\t| `a` | top | `b`, `c`, `x/y` |"},
		"import gone":          {"a", []string{"c"}, "row of a: does not import b; if that is meant, the row is:\n\t| `a` | top | `c` |"},
		"leaf with an import":  {"c", []string{"x/y"}, "row of c: may not import x/y"},
		"import upwards":       {"x/y", []string{"c", "x/z"}, "docs/design.md:4: row of x/…: imports c, whose row is above it (line 3)"},
		"package without row":  {"d", []string{"c"}, "package d has no row; add this one above all that it imports:\n\t| `d` | WHAT IT IS FOR | `c` |"},
		"packages of a family": {"x/new", []string{"x/y"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			packages := map[string][]string{"a": {"b", "c"}, "b": {"c"}, "c": nil, "x/y": {"x/z"}, "x/z": nil}
			packages[tt.pkg] = tt.imports
			problems := strings.Join(compare(rows, packages), "\n")
			if tt.want == "" && problems != "" || !strings.Contains(problems, tt.want) {
				t.Errorf("reports %q, want %q", problems, tt.want)
			}
		})
	}
	t.Run("row without package", func(t *testing.T) {
		problems := compare(rows[2:3], map[string][]string{})
		if len(problems) != 1 || !strings.Contains(problems[0], "docs/design.md:3: row of c: there is no such package; remove the row") {
			t.Errorf("reports %q", problems)
		}
	})
	t.Run("two rows for a package", func(t *testing.T) {
		problems := compare([]row{rows[2], {line: 9, pattern: "c"}}, map[string][]string{"c": nil})
		if len(problems) != 1 || !strings.Contains(problems[0], "docs/design.md:9: row of c: an earlier row names the same package") {
			t.Errorf("reports %q", problems)
		}
	})
}
