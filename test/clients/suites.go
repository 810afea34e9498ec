// This file runs the suites of libiscsi's iscsi-test-cu against a target, one process a
// suite, and reads what they print. The program counts a test that skipped its work as
// passed; here such tests are counted apart, and maySkip holds the reasons for which one
// may.

package clients

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Result is what one suite said.
type Result struct {
	Suite    string
	Ran      int
	Passed   int    // without those that skipped something
	Skipped  int    // tests that printed at least one [SKIPPED] line
	Skips    []Skip // those lines
	Failed   int
	Finished bool // the program printed its summary
	Elapsed  time.Duration
	Output   string
}

// Skip is a line by which a test says that it left work out.
type Skip struct{ Test, Why string }

// OK reports whether the suite ran to its end and nothing failed.
func (r Result) OK() bool { return r.Finished && r.Ran > 0 && r.Failed == 0 }

// Suite is what one process runs.
type Suite struct {
	Name string
	// Tests of it; all where there are none.
	Tests []string
}

// pattern is the suite as the program's --test takes it.
func (s Suite) pattern() string {
	if len(s.Tests) == 0 {
		return "ALL." + s.Name
	}
	var all []string
	for _, t := range s.Tests {
		all = append(all, "ALL."+s.Name+"."+t)
	}
	return strings.Join(all, ",")
}

// List asks program (iscsi-test-cu) for its suites and their tests.
func List(ctx context.Context, program string) ([]Suite, error) {
	out, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", program, err)
	}
	var all []Suite
	for line := range strings.Lines(string(out)) {
		name := strings.Split(strings.TrimSpace(line), ".")
		if name[0] != "ALL" || len(name) != 3 {
			continue // a family, a suite, or a subset of all under another name
		}
		if len(all) == 0 || all[len(all)-1].Name != name[1] {
			all = append(all, Suite{Name: name[1]})
		}
		last := &all[len(all)-1]
		last.Tests = append(last.Tests, name[2])
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s --list names no suite:\n%s", program, out)
	}
	return all, nil
}

// Run runs one suite of program (iscsi-test-cu) against a logical unit, whose
// data it overwrites, until it ends or ctx does. Each URL is a path to the
// unit.
func Run(ctx context.Context, program string, suite Suite, urls ...string) Result {
	// Unbuffered, so that a [SKIPPED] line stands after the test it belongs to;
	// some tests say that they skip only with --Verbose-scsi.
	args := []string{"-o0", "-e0", program, "--dataloss", "--allow-sanitize", "--verbose", "--Verbose-scsi", "--test=" + suite.pattern()}
	cmd := exec.CommandContext(ctx, "stdbuf", append(args, urls...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	r := parse(out.String())
	r.Suite, r.Elapsed = suite.Name, time.Since(start)
	if err != nil {
		r.Output += fmt.Sprintf("\n%s: %v", program, err)
	}
	if ctx.Err() != nil {
		r.Finished = false
		r.Output += fmt.Sprintf("\nhung: ended after %v", r.Elapsed.Round(time.Second))
	}
	return r
}

// The program is CUnit: "  Test: Name ...", then what the test logs, then
// "passed" or "FAILED", and at the end a table whose row "tests" has total,
// ran, passed, failed and inactive.
var (
	begun   = regexp.MustCompile(`^\s*Test: (\S+) \.\.\.`)
	skipped = regexp.MustCompile(`^\s*\[SKIPPED\] (.*)`)
	summary = regexp.MustCompile(`(?m)^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s`)
)

func parse(out string) Result {
	r := Result{Output: out}
	test, skips := "", 0
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \n")
		if m := begun.FindStringSubmatch(line); m != nil {
			test, skips = m[1], 0
			line = line[len(m[0]):]
		}
		// The verdict ends a test. What follows it, on its line or others, and
		// what comes before the first test is about the program's own probing.
		if test == "" {
			continue
		}
		if m := skipped.FindStringSubmatch(line); m != nil {
			r.Skips = append(r.Skips, Skip{test, m[1]})
			skips++
		}
		passed, failed := strings.HasPrefix(line, "passed"), strings.HasPrefix(line, "FAILED")
		if passed && skips > 0 {
			r.Skipped++
		}
		if passed || failed {
			test = ""
		}
	}
	if m := summary.FindStringSubmatch(out); m != nil {
		r.Finished = true
		r.Ran, _ = strconv.Atoi(m[2])
		passed, _ := strconv.Atoi(m[3])
		r.Passed = passed - r.Skipped
		r.Failed, _ = strconv.Atoi(m[4])
	}
	return r
}

// Complaints is the part of the output that says why tests failed: with --Verbose-scsi
// lists each command.
func (r Result) Complaints() string {
	const context = 12 // lines of what went before
	lines := strings.Split(r.Output, "\n")
	var b strings.Builder
	printed := 0
	for i, line := range lines {
		if strings.Contains(line, "FAIL") || !r.Finished && i == len(lines)-1 {
			for ; printed <= i; printed++ {
				if i-printed <= context {
					b.WriteString(lines[printed] + "\n")
				}
			}
		}
	}
	return b.String()
}

// Table shows the results for people.
func Table(results []Result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "suite\tran\tpassed\tskipped\tfailed\tseconds\t")
	var all Result
	for _, r := range results {
		note := ""
		if !r.Finished {
			note = "did not finish"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.1f\t%s\n", r.Suite, r.Ran, r.Passed, r.Skipped, r.Failed, r.Elapsed.Seconds(), note)
		all.Ran, all.Passed = all.Ran+r.Ran, all.Passed+r.Passed
		all.Skipped, all.Failed = all.Skipped+r.Skipped, all.Failed+r.Failed
		all.Elapsed += r.Elapsed
	}
	fmt.Fprintf(w, "all %d\t%d\t%d\t%d\t%d\t%.1f\t\n", len(results), all.Ran, all.Passed, all.Skipped, all.Failed, all.Elapsed.Seconds())
	w.Flush()
	return b.String()
}
