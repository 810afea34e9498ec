package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

var fuzzTime = flag.Duration("fuzz", 5*time.Second, "fuzzing time per fuzz target in stage fuzz")

// fuzzGrace bounds the time to minimize a failing input, in addition to the fuzzing time.
const fuzzGrace = 2 * time.Minute

// fuzzTarget is a FuzzXxx function of a package.
type fuzzTarget struct{ pkg, name string }

// command is what repeats a run by hand.
func (t fuzzTarget) command() string {
	// By default, minimizing an input takes up to a minute, also one that does not fail:
	// with a second each, most targets would do nothing else.
	return fmt.Sprintf("go test -run=^$ -fuzz=^%s$ -fuzztime=%v -fuzzminimizetime=100ms -parallel=1 %s", t.name, *fuzzTime, t.pkg)
}

// fuzzPackage is a package with fuzz targets.
type fuzzPackage struct {
	path, dir string
	targets   []string
}

// fuzz is the stage that runs every fuzz target of the module, on one core each. The binary
// of a package is built once for all of its targets; go test -fuzz would link it for each.
// As with go test -fuzz, interesting inputs go to the Go build cache and failing ones
// to testdata/fuzz of the package.
func fuzz(out io.Writer) counts {
	packages, err := findFuzzTargets(".")
	if err != nil {
		fmt.Fprintln(out, "find fuzz targets:", err)
		return counts{failed: 1}
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		fmt.Fprintln(out, "go env GOCACHE:", err)
		return counts{failed: 1}
	}
	bin, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		fmt.Fprintln(out, err)
		return counts{failed: 1}
	}
	defer os.RemoveAll(bin)
	var mu sync.Mutex
	var total counts
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range packages {
		binary := filepath.Join(bin, fmt.Sprint(i))
		build := sync.OnceValues(func() (string, error) { return p.build(binary) })
		corpus := filepath.Join(strings.TrimSpace(string(cache)), "fuzz", p.path)
		for _, name := range p.targets {
			group.Go(func() error {
				text, err := build()
				if err == nil {
					text, err = p.run(binary, name, corpus)
				}
				mu.Lock()
				defer mu.Unlock()
				total.add(reportFuzz(out, fuzzTarget{p.path, name}, text, err))
				return nil
			})
		}
	}
	_ = group.Wait() // failures are counted
	return total
}

// findFuzzTargets returns the packages of the module in dir that have fuzz targets, by what
// their sources declare: to ask the test binaries, all of them would have to be built.
func findFuzzTargets(dir string) ([]fuzzPackage, error) {
	cmd := exec.Command("go", "list", "-e", "-f", `{{.ImportPath}}{{"\t"}}{{.Dir}}{{range .TestGoFiles}}{{"\t"}}{{.}}{{end}}{{range .XTestGoFiles}}{{"\t"}}{{.}}{{end}}`, "./...")
	cmd.Dir = dir
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var packages []fuzzPackage
	for line := range strings.Lines(string(list)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		p := fuzzPackage{path: fields[0], dir: fields[1]}
		for _, name := range fields[2:] {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
					p.targets = append(p.targets, f.Name.Name)
				}
			}
		}
		if len(p.targets) > 0 {
			packages = append(packages, p)
		}
	}
	if len(packages) == 0 {
		return nil, errors.New("none found")
	}
	return packages, nil
}

// build builds the test binary of the package, instrumented for fuzzing, and returns what
// the compiler said.
func (p fuzzPackage) build(binary string) (text string, err error) {
	output, err := exec.Command("go", "test", "-c", "-fuzz=.", "-o", binary, p.path).CombinedOutput()
	return string(output), err
}

// run fuzzes a target and returns the output.
func (p fuzzPackage) run(binary, name, corpus string) (text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), *fuzzTime+fuzzGrace)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.fuzz=^"+name+"$", "-test.fuzzcachedir="+corpus,
		fmt.Sprint("-test.fuzztime=", *fuzzTime), "-test.fuzzminimizetime=100ms", "-test.parallel=1")
	cmd.Dir = p.dir
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// Without a limit, targets with much garbage use gigabytes, several at a time.
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=1GiB")
	// A process group, so that the kill also reaches the workers.
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
