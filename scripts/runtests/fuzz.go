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

var fuzzTime = flag.Duration("fuzz", 8*time.Second, "how long the stage fuzz runs each target")

// fuzzGrace is what building a target, and making an input that fails small,
// may take beyond the time of fuzzing.
const fuzzGrace = 5 * time.Minute

// fuzzTarget is a FuzzXxx function of a package.
type fuzzTarget struct{ pkg, name string }

func (t fuzzTarget) command() string {
	// Making each early input small takes up to a minute otherwise.
	return fmt.Sprintf("go test -run=^$ -fuzz=^%s$ -fuzztime=%v -fuzzminimizetime=1s -parallel=1 %s", t.name, *fuzzTime, t.pkg)
}

// fuzz is the stage that runs every fuzz target of the tree, on one core each.
// What they find interesting goes to Go's build cache, an input that fails to
// testdata/fuzz of its package, as with go test -fuzz by hand.
func fuzz(out io.Writer) counts {
	targets, err := findFuzzTargets(".")
	if err != nil {
		fmt.Fprintln(out, "looking for fuzz targets:", err)
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

// findFuzzTargets lists the targets of the module in dir.
func findFuzzTargets(dir string) ([]fuzzTarget, error) {
	cmd := exec.Command("go", "test", "-json", "-list=^Fuzz", "./...")
	cmd.Dir = dir
	list, err := cmd.Output()
	var targets []fuzzTarget
	var said strings.Builder
	for line := range strings.Lines(string(list)) {
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		said.WriteString(e.Output)
		if name := strings.TrimSpace(e.Output); strings.HasPrefix(name, "Fuzz") {
			targets = append(targets, fuzzTarget{e.Package, name})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, said.String())
	}
	if len(targets) == 0 {
		return nil, errors.New("there are none")
	}
	return targets, nil
}

// runFuzzTarget returns what go test said.
func runFuzzTarget(t fuzzTarget) (text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), *fuzzTime+fuzzGrace)
	defer cancel()
	args := strings.Fields(t.command())
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	// Targets that make much garbage take gigabytes otherwise, several at a time.
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=1GiB")
	// A group of its own, so that a target that hangs ends with go test.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end: %w", ctx.Err())
	}
	return said.String(), err
}

// execs finds in what go test -fuzz says how many inputs it has run.
var execs = regexp.MustCompile(`execs: (\d+)`)

// endOfTime matches what go test -fuzz says when its own clock fails a target
// that it has found nothing wrong with (go.dev/issue/75804, until Go 1.27).
var endOfTime = regexp.MustCompile(`(?m)^--- FAIL: Fuzz.*\n    context deadline exceeded\nFAIL$`)

func reportFuzz(out io.Writer, t fuzzTarget, text string, err error) counts {
	if err != nil && !endOfTime.MatchString(text) {
		fmt.Fprintf(out, "FAIL %s %s: %v\n%sto fuzz it again: %s\n", t.pkg, t.name, err, text, t.command())
		return counts{failed: 1}
	}
	inputs := "0"
	if all := execs.FindAllStringSubmatch(text, -1); len(all) > 0 {
		inputs = all[len(all)-1][1]
	}
	fmt.Fprintf(out, "   %-40s %-32s %10s inputs\n", t.pkg, t.name, inputs)
	return counts{passed: 1}
}
