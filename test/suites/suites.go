// Package suites runs the suites of libiscsi's iscsi-test-cu against a target,
// one process a suite, and reads what they say. The program counts a test that
// skipped its work as passed; here such tests are counted by themselves.
package suites

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

// Required are the suites that a disk must pass.
var Required = []string{
	"Inquiry", "Mandatory",
	"Read6", "Read10", "Read12", "Read16",
	"Write10", "Write12", "Write16",
	"ReadCapacity10", "ReadCapacity16", "TestUnitReady",
	"Unmap", "WriteSame10", "WriteSame16",
	"Verify10", "Verify12", "Verify16", "ModeSense6",
	"iSCSIResiduals", "iSCSIcmdsn", "iSCSIdatasn", "iSCSITMF",
}

// Result is what one suite said.
type Result struct {
	Suite    string
	Ran      int
	Passed   int      // without those that skipped something
	Skipped  int      // tests that printed at least one [SKIPPED] line
	Skips    []string // those lines
	Failed   int
	Finished bool // the program printed its summary
	Elapsed  time.Duration
	Output   string
}

// OK tells whether the suite ran to its end and nothing failed.
func (r Result) OK() bool { return r.Finished && r.Ran > 0 && r.Failed == 0 }

// Run runs one suite of program (iscsi-test-cu) against url, whose data it
// overwrites, until it ends or ctx does.
func Run(ctx context.Context, program, suite, url string) Result {
	// Unbuffered, so that a [SKIPPED] line stands after the test it belongs to.
	cmd := exec.CommandContext(ctx, "stdbuf", "-o0", "-e0", program, "--dataloss", "--verbose", "--test=ALL."+suite, url)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	r := parse(out.String())
	r.Suite, r.Elapsed = suite, time.Since(start)
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
var summary = regexp.MustCompile(`(?m)^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s`)

func parse(out string) Result {
	r := Result{Output: out}
	inTest, skipped := false, false
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Test: ") {
			inTest, skipped = true, false
		}
		// The verdict ends a test. What follows it, on its line or others, and
		// what comes before the first test is about the program's own probing.
		before, _, passed := strings.Cut(line, "passed")
		if _, why, ok := strings.Cut(before, "[SKIPPED] "); inTest && ok {
			r.Skips = append(r.Skips, why)
			skipped = true
		}
		if inTest && passed {
			if skipped {
				r.Skipped++
			}
			inTest = false
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
