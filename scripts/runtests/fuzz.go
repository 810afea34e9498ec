package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

var fuzzTime = flag.Duration("fuzz", 8*time.Second, "fuzzing time per fuzz target in stage fuzz")

// fuzzGrace bounds the time to build a target and to minimize a failing input, in
// addition to the fuzzing time.
const fuzzGrace = 5 * time.Minute

// fuzzTarget is a FuzzXxx function of a package.
type fuzzTarget struct{ pkg, name string }

func (t fuzzTarget) command() string {
	// By default, minimizing an input takes up to a minute.
	return fmt.Sprintf("go test -run=^$ -fuzz=^%s$ -fuzztime=%v -fuzzminimizetime=1s -parallel=1 %s", t.name, *fuzzTime, t.pkg)
}

// fuzz is the stage that runs every fuzz target of the module, on one core each.
// As with go test -fuzz, interesting inputs go to the Go build cache and failing ones
// to testdata/fuzz of the package.
func fuzz(out io.Writer) counts {
	targets, err := findFuzzTargets(".")
	if err != nil {
		fmt.Fprintln(out, "list fuzz targets:", err)
		return counts{failed: 1}
	}
	var mu sync.Mutex
	var total counts
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, target := range targets {
		group.Go(func() error {
			text, err := runFuzzTarget(target)
			mu.Lock()
			defer mu.Unlock()
			total.add(reportFuzz(out, target, text, err))
			return nil
		})
	}
	_ = group.Wait() // failures are counted
	return total
}

// findFuzzTargets returns the fuzz targets of the module in dir.
func findFuzzTargets(dir string) ([]fuzzTarget, error) {
	cmd := exec.Command("go", "test", "-json", "-list=^Fuzz", "./...")
	cmd.Dir = dir
	list, err := cmd.Output()
	var targets []fuzzTarget
	var output strings.Builder
	for line := range strings.Lines(string(list)) {
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		output.WriteString(e.Output)
		if name := strings.TrimSpace(e.Output); strings.HasPrefix(name, "Fuzz") {
			targets = append(targets, fuzzTarget{e.Package, name})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, output.String())
	}
	if len(targets) == 0 {
		return nil, errors.New("none found")
	}
	return targets, nil
}

// runFuzzTarget returns the output of go test.
func runFuzzTarget(t fuzzTarget) (text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), *fuzzTime+fuzzGrace)
	defer cancel()
	args := strings.Fields(t.command())
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// Without a limit, targets with much garbage use gigabytes, several at a time.
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=1GiB")
	// A process group, so that the kill also reaches the test binary.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("timed out: %w", ctx.Err())
	}
	return output.String(), err
}

// execs matches the number of inputs in the output of go test -fuzz.
var execs = regexp.MustCompile(`execs: (\d+)`)

// spuriousDeadline matches the output of go test -fuzz when its own timer fails a
// target without a failing input (go.dev/issue/75804, until Go 1.27).
var spuriousDeadline = regexp.MustCompile(`(?m)^--- FAIL: Fuzz.*\n    context deadline exceeded\nFAIL$`)

func reportFuzz(out io.Writer, t fuzzTarget, text string, err error) counts {
	if err != nil && !spuriousDeadline.MatchString(text) {
		fmt.Fprintf(out, "FAIL %s %s: %v\n%sto repeat: %s\n", t.pkg, t.name, err, text, t.command())
		return counts{failed: 1}
	}
	inputs := "0"
	if all := execs.FindAllStringSubmatch(text, -1); len(all) > 0 {
		inputs = all[len(all)-1][1]
	}
	fmt.Fprintf(out, "   %-40s %-32s %10s inputs\n", t.pkg, t.name, inputs)
	return counts{passed: 1}
}
