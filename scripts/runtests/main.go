// Command runtests runs the stages of the project's test: the checks of the
// source, the unit tests, the same under the race detector, the randomized model
// of the store, the fuzz targets, and the tests with real clients. It prints
// little while all is well and everything about what failed, and ends in a table
// of the stages and one line of counts.
//
// usage: runtests [-model TIME] [-fuzz TIME] [STAGE...]    (all of them by default)
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

// stage is one row of the summary.
type stage struct {
	name string
	run  func(out io.Writer) counts
}

// raceTested are the packages that share memory between goroutines.
var raceTested = []string{"./api/...", "./backstore/...", "./chap/...", "./cmd/...", "./initiator/...", "./target/...", "./tokens/...", "./vhd/..."}

var stages = []stage{
	{"format", gofmt},
	{"vet", commands("go vet ./...", "go vet -tags e2e ./...", "env GOOS=linux GOARCH=arm64 go build ./...")},
	{"staticcheck", commands("go tool staticcheck ./...", "go tool staticcheck -tags e2e ./test/... ./internal/...")},
	{"lint", lint},
	{"unit", goTest("-timeout=10m", "./...")},
	{"race", goTest(append([]string{"-race", "-timeout=25m"}, raceTested...)...)},
	{"model", model},
	{"fuzz", fuzz},
	// One package at a time: each starts servers and clients of its own, and a
	// guest under emulation.
	{"e2e", goTest("-tags=e2e", "-count=1", "-p=1", "-timeout=45m", "./test/...", "./internal/...")},
}

// reportEnv and reportDir: tests leave tables there that are worth printing
// when all is well, too.
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
		return fmt.Errorf("folder for reports: %w", err)
	}
	var results []result
	for _, s := range chosen {
		fmt.Fprintf(out, "== %s\n", s.name)
		start := time.Now()
		c := s.run(out)
		results = append(results, result{s.name, c, time.Since(start)})
	}
	if err := printReports(out, dir); err != nil {
		return err
	}
	if total := printSummary(out, results); total.failed > 0 {
		os.Exit(1)
	}
	return nil
}

// choose returns the named stages in their own order, all for no name.
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
			return nil, fmt.Errorf("no stage %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// gofmt is the stage that finds unformatted files.
func gofmt(out io.Writer) counts {
	list, err := exec.Command("gofmt", "-l", ".").CombinedOutput()
	if err != nil || len(list) > 0 {
		fmt.Fprintf(out, "not formatted as gofmt does, run gofmt -w on:\n%s", list)
		return counts{failed: 1}
	}
	return counts{passed: 1}
}

// commands is the stage that passes when every command line does.
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

// goTest is the stage that runs go test with args.
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
