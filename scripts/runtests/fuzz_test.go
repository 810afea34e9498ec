package main

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestFindFuzzTargets(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module m\n")
	write(t, filepath.Join(dir, "a_test.go"), fuzzing)
	got, err := findFuzzTargets(dir)
	if want := []fuzzPackage{{"m", dir, []string{"FuzzOne", "FuzzTwo"}}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("found %v, %v, want %v", got, err, want)
	}
	write(t, filepath.Join(dir, "a_test.go"), "package a\nfunc FuzzOne( {}\n")
	if got, err := findFuzzTargets(dir); err == nil {
		t.Errorf("a package that does not parse has targets %v", got)
	}
}

// fuzzing has a target that never fails, and one that fails at once.
const fuzzing = `package a
	import "testing"
	func FuzzOne(f *testing.F) { f.Add([]byte("x")); f.Fuzz(func(t *testing.T, b []byte) {}) }
	func FuzzTwo(f *testing.F) { f.Add([]byte("x")); f.Fuzz(func(t *testing.T, b []byte) { t.Fatal("never right") }) }
	func TestFuzzless(t *testing.T) {}
`

// TestFuzz builds a package once, and runs both of its targets.
func TestFuzz(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module m\n")
	write(t, filepath.Join(dir, "a_test.go"), fuzzing)
	t.Chdir(dir)
	before := *fuzzTime
	*fuzzTime = time.Second
	defer func() { *fuzzTime = before }()
	var out strings.Builder
	if got := fuzz(&out); got != (counts{passed: 1, failed: 1}) {
		t.Errorf("counted %+v", got)
	}
	for _, want := range []string{" inputs\n", "never right", "to repeat: go test -run=^$ -fuzz=^FuzzTwo$"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q: %s", want, &out)
		}
	}
}

func TestReportFuzz(t *testing.T) {
	progress := "fuzz: elapsed: 3s, execs: 10 (3/sec)\nfuzz: elapsed: 30s, execs: 4321 (99/sec)\n"
	failed := errors.New("exit status 1")
	for name, tt := range map[string]struct {
		text   string
		err    error
		want   counts
		output string
	}{
		"no failing input": {progress + "PASS\nok  \tm\t30.1s\n", nil, counts{passed: 1}, "4321 inputs"},
		"failing input": {
			progress + "--- FAIL: FuzzOne (0.1s)\n    --- FAIL: FuzzOne (0.00s)\n    Failing input written to testdata/fuzz/FuzzOne/abc\n",
			failed, counts{failed: 1}, "testdata/fuzz/FuzzOne/abc",
		},
		"command to repeat":      {progress, failed, counts{failed: 1}, "-fuzz=^FuzzOne$ -fuzztime=5s -fuzzminimizetime=100ms -parallel=1 m"},
		"spurious deadline":      {progress + "--- FAIL: FuzzOne (30.1s)\n    context deadline exceeded\nFAIL\nexit status 1\n", failed, counts{passed: 1}, "4321 inputs"},
		"deadline of the target": {"--- FAIL: FuzzOne (1s)\n    a_test.go:3: context deadline exceeded\nFAIL\n", failed, counts{failed: 1}, "a_test.go:3"},
		"build failure":          {"FAIL m [build failed]\n", failed, counts{failed: 1}, "build failed"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if got := reportFuzz(&out, fuzzTarget{"m", "FuzzOne"}, tt.text, tt.err); got != tt.want {
				t.Errorf("counted %+v, want %+v", got, tt.want)
			}
			if !strings.Contains(out.String(), tt.output) {
				t.Errorf("output lacks %q: %s", tt.output, out.String())
			}
		})
	}
}
