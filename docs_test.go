package odx_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents returns the Markdown files of the module.
func documents(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "docs/guides/*.md", "test/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	return names
}

var (
	link     = regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	codePath = regexp.MustCompile("`((?:admin|api|backstore|bench|blockdev|chap|cmd|conf|docs|initiator|internal|offload|packaging|scripts|target|test|tokens|vhd)/[a-zA-Z0-9_./-]+)`")
	suite    = regexp.MustCompile(`iscsi-test-cu \w+`) // of libiscsi
	testName = regexp.MustCompile(`\b((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*)(…|\b)`)
)

// TestDocs holds what documents refer to against the tree: links, paths in back
// quotes, and names of tests.
func TestDocs(t *testing.T) {
	tests := testNames(t)
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if m[1] != "" && !strings.Contains(m[1], "://") && !exists(filepath.Join(filepath.Dir(name), m[1])) {
					t.Errorf("%s:%d: link to %s, which is not there", name, i+1, m[1])
				}
			}
			for _, m := range codePath.FindAllStringSubmatch(line, -1) {
				if !exists(m[1]) {
					t.Errorf("%s:%d: %s is not there: name where it is now", name, i+1, m[1])
				}
			}
			for _, m := range testName.FindAllStringSubmatch(suite.ReplaceAllString(line, ""), -1) {
				if !known(tests, m[1], m[2] == "…") {
					t.Errorf("%s:%d: there is no test %s: write its name of now", name, i+1, m[0])
				}
			}
		}
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// known reports whether name, or the beginning of one, is that of a test.
func known(tests map[string]bool, name string, beginning bool) bool {
	if !beginning {
		return tests[name]
	}
	for test := range tests {
		if strings.HasPrefix(test, name) {
			return true
		}
	}
	return false
}

// testNames returns the names of all tests, fuzz targets and benchmarks.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	names := map[string]bool{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
