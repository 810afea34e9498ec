package odx_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestLogFields compares the table of fields in docs/log.md with those that the source
// writes: a name that scripts may search for is in the table, and stays.
func TestLogFields(t *testing.T) {
	text, err := os.ReadFile("docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| ((?:`[a-z_]+`(?:, )?)+) \\|").FindAllStringSubmatch(string(text), -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			documented[strings.Trim(name, "`")] = true
		}
	}
	written := logFields(t)
	for _, name := range sortedNames(written) {
		if !documented[name] {
			t.Errorf("%s: the log field %q is not in the table of docs/log.md: use a name that is there, or add it", written[name], name)
		}
	}
	for _, name := range sortedNames(documented) {
		if _, ok := written[name]; !ok && name != "time" && name != "level" && name != "msg" && name != "error" {
			t.Errorf("docs/log.md has the field %q, which nothing writes", name)
		}
	}
}

func sortedNames[V any](m map[string]V) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// logFields returns the names of fields in the source of the program, each with a place.
func logFields(t *testing.T) map[string]string {
	t.Helper()
	names := map[string]string{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{"bench", "test", "scripts", "internal/kit"}, filepath.ToSlash(name)) || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != "."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			for _, key := range fieldsOf(n) {
				names[key] = set.Position(n.Pos()).String()
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// fieldsOf returns the names that are in a node: WithField("x", …), logrus.Fields{"x": …},
// fields["x"] = …
func fieldsOf(n ast.Node) (names []string) {
	add := func(e ast.Expr) {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if name, err := strconv.Unquote(literal.Value); err == nil {
				names = append(names, name)
			}
		}
	}
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "WithField" && len(n.Args) == 2 {
			add(n.Args[0])
		}
	case *ast.CompositeLit:
		if f, ok := n.Type.(*ast.SelectorExpr); ok && f.Sel.Name == "Fields" {
			for _, e := range n.Elts {
				add(e.(*ast.KeyValueExpr).Key)
			}
		}
	case *ast.IndexExpr:
		if f, ok := n.X.(*ast.Ident); ok && f.Name == "fields" {
			add(n.Index)
		}
	}
	return names
}
