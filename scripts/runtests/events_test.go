package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The events are those of go test on small packages.
func TestReadEvents(t *testing.T) {
	for name, tt := range map[string]struct {
		body   string
		want   counts
		output string
	}{
		"only tests without subtests count": {
			`func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Run("y", func(t *testing.T) {}) }
			func TestB(t *testing.T) {}`,
			counts{passed: 3}, "3 passed",
		},
		"failure with output": {
			`func TestA(t *testing.T) { t.Log("before"); t.Run("x", func(t *testing.T) { t.Error("broken") }) }
			func TestB(t *testing.T) {}`,
			counts{passed: 1, failed: 1}, "broken",
		},
		"skip with reason": {
			`func TestA(t *testing.T) { t.Skip("no such program") }`,
			counts{skipped: 1}, "no such program",
		},
		"build failure": {
			`func TestA(t *testing.T) { undefinedName() }`,
			counts{failed: 1}, "undefinedName",
		},
		"panic": {
			`func TestA(t *testing.T) { panic("boom") }`,
			counts{failed: 1}, "boom",
		},
		"exit outside a test": {
			`func TestMain(m *testing.M) { println("gone"); os.Exit(3) }`,
			counts{failed: 1}, "gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			source := "package p\nimport (\"os\"; \"testing\")\nvar _ = os.Exit\nvar _ testing.T\n" + tt.body + "\n"
			write(t, filepath.Join(dir, "go.mod"), "module p\n")
			write(t, filepath.Join(dir, "p_test.go"), source)
			cmd := exec.Command("go", "test", "-json", "./...")
			cmd.Dir = dir
			events, _ := cmd.Output() // the exit status is that of the test
			var out strings.Builder
			if got := readEvents(strings.NewReader(string(events)), &out); got != tt.want {
				t.Errorf("got %+v, want %+v; events:\n%s", got, tt.want, events)
			}
			if !strings.Contains(out.String(), tt.output) {
				t.Errorf("output lacks %q:\n%s", tt.output, out.String())
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPrintSummary(t *testing.T) {
	var out strings.Builder
	total := printSummary(&out, []result{
		{"vet", counts{passed: 1}, time.Second},
		{"unit", counts{passed: 40, failed: 2, skipped: 1}, 1500 * time.Millisecond},
	})
	want := `
  stage  result  passed  failed  skipped  seconds
    vet      ok       1       0        0      1.0
   unit  FAILED      40       2        1      1.5

41 passed, 2 failed
`
	if out.String() != want {
		t.Errorf("got:%s\nwant:%s", out.String(), want)
	}
	if total != (counts{passed: 41, failed: 2, skipped: 1}) {
		t.Errorf("total %+v", total)
	}
}

// A stage says what it came to when it ends: the next ones may never end.
func TestRunStages(t *testing.T) {
	var out strings.Builder
	text := func() string { return regexp.MustCompile(`\d+\.\d`).ReplaceAllString(out.String(), "T") }
	first := "== vet\nlooks\n== vet: ok after T s, T s in all\n== unit\n"
	results := runStages(&out, []stage{
		{"vet", func(out io.Writer) counts { fmt.Fprintln(out, "looks"); return counts{passed: 1} }},
		{"unit", func(io.Writer) counts {
			if text() != first {
				t.Errorf("before the second stage ends: %s", text())
			}
			return counts{passed: 3, failed: 1}
		}},
	})
	if want := first + "== unit: FAILED after T s, T s in all\n"; text() != want {
		t.Errorf("got:\n%s\nwant:\n%s", text(), want)
	}
	if len(results) != 2 || results[0].stage != "vet" || results[1].counts != (counts{passed: 3, failed: 1}) {
		t.Errorf("%+v", results)
	}
}

func TestChoose(t *testing.T) {
	if got, err := choose(nil); err != nil || len(got) != len(stages) {
		t.Errorf("no name: %d stages, %v", len(got), err)
	}
	if got, err := choose([]string{"unit", "vet"}); err != nil || len(got) != 2 || got[0].name != "vet" {
		t.Errorf("two names: %v, %v", got, err)
	}
	if _, err := choose([]string{"units"}); err == nil {
		t.Error("an unknown name is accepted")
	}
}
