// Command runtests runs the stages of the project's tests: source checks, unit tests,
// unit tests with the race detector, the randomized model of the store, fuzz targets,
// and end-to-end tests with real clients. It prints the full output of failures, a
// table of the stages, and a line with the totals.
//
// usage: runtests [-model TIME] [-fuzz TIME] [STAGE...]    (default: all stages)
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stage is a row of the summary.
type stage struct {
	name string
	run  func(out io.Writer) counts
}

// raceTested are the packages that share memory between goroutines.
var raceTested = []string{"./admin/...", "./alerts/...", "./api/...", "./audit/...", "./backstore/...", "./chap/...", "./cmd/...", "./initiator/...", "./metrics/...", "./migrate/...", "./monitor/...", "./offload/...", "./owner/...", "./peer/...", "./replica/...", "./snapshots/...", "./standby/...", "./stream/...", "./successor/...", "./target/...", "./tokens/...", "./vhd/...", "./web/..."}

var stages = []stage{
	{"format", gofmt},
	{"vet", commands("go vet ./...", "go vet -tags e2e ./...", "env GOOS=linux GOARCH=arm64 go build ./...", "env GOOS=linux GOARCH=s390x go build ./backstore/vfs")},
	{"staticcheck", commands("go tool staticcheck ./...", "go tool staticcheck -tags e2e ./test/... ./internal/...")},
	{"lint", lint},
	{"unit", goTest("-timeout=15m", "./...")},
	{"race", goTest(append([]string{"-race", "-short", "-timeout=15m"}, raceTested...)...)},
	{"model", model},
	{"fuzz", fuzz},
	// Files and owners of stores in a real Ceph cluster, with librados.
	{"ceph", goTest("-tags=rados", "-count=1", "-p=1", "-timeout=20m", "./backstore/vfs/rados/...", "./test/ceph")},
	// One package at a time, because each starts servers, clients and emulated guests.
	{"e2e", goTest("-tags=e2e", "-count=1", "-p=1", "-timeout=45m", "./test/...", "./internal/...")},
}

// reportEnv names the environment variable with the absolute path of reportDir. Tests
// write tables there, which are printed even if all tests pass.
const (
	reportEnv = "ODX_TEST_REPORT"
	reportDir = "bin/test-report"
)

func main() {
	flag.Parse()
	if err := run(os.Stdout, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "runtests:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(reportDir)
	if err == nil {
		err = errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), os.Setenv(reportEnv, dir))
	}
	if err != nil {
		return fmt.Errorf("report directory: %w", err)
	}
	results := runStages(out, chosen)
	if err := printReports(out, dir); err != nil {
		return err
	}
	if total := printSummary(out, results); total.failed > 0 {
		os.Exit(1)
	}
	return nil
}

// runStages runs stages one after the other. It prints what each came to when it ends, so
// that a run that is cut off shows where its time went.
func runStages(out io.Writer, chosen []stage) []result {
	var results []result
	began := time.Now()
	for _, s := range chosen {
		fmt.Fprintf(out, "== %s\n", s.name)
		start := time.Now()
		c := s.run(out)
		r := result{s.name, c, time.Since(start)}
		fmt.Fprintf(out, "== %s: %s after %.1f s, %.1f s in all\n", r.stage, r.verdict(), r.took.Seconds(), time.Since(began).Seconds())
		results = append(results, r)
	}
	return results
}

// choose returns the named stages in the order of stages, or all stages if names is
// empty.
func choose(names []string) ([]stage, error) {
	if len(names) == 0 {
		return stages, nil
	}
	var chosen []stage
	var known []string
	for _, s := range stages {
		known = append(known, s.name)
		if slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown stage %q; stages: %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// gofmt is the stage that lists unformatted files.
func gofmt(out io.Writer) counts {
	list, err := exec.Command("gofmt", "-l", ".").CombinedOutput()
	if err != nil || len(list) > 0 {
		fmt.Fprintf(out, "not gofmt-formatted; run gofmt -w on:\n%s", list)
		return counts{failed: 1}
	}
	return counts{passed: 1}
}

// commands returns a stage that runs command lines. Each is a check.
func commands(lines ...string) func(io.Writer) counts {
	return func(out io.Writer) counts {
		var c counts
		for _, line := range lines {
			args := strings.Fields(line)
			text, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if err != nil {
				fmt.Fprintf(out, "%s: %v\n%s", line, err, text)
				c.failed++
				continue
			}
			c.passed++
		}
		return c
	}
}

// goTest returns a stage that runs go test with args.
func goTest(args ...string) func(io.Writer) counts {
	return func(out io.Writer) counts {
		cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			fmt.Fprintln(out, err)
			return counts{failed: 1}
		}
		c := readEvents(stdout, out)
		if err := cmd.Wait(); err != nil && c.failed == 0 {
			fmt.Fprintf(out, "go test %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
			c.failed++
		}
		return c
	}
}
