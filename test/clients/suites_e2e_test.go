//go:build e2e

package clients

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// limit ends a client that hangs. The slowest suite takes ten seconds.
const limit = 90 * time.Second

func TestDiscovery(t *testing.T) {
	ls := harness.Program(t, "iscsi-ls", "libiscsi-bin")
	target := harness.Serve(t, kit.LUN{Size: 64 << 20}, kit.LUN{Size: 128 << 20})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out := harness.Run(ctx, t, ls, "-s", target.PortalURL())
	// A size is printed one short: from the last block's address.
	for _, want := range []string{
		"Target:" + target.IQN,
		"Portal:" + target.Portal,
		fmt.Sprintf("Lun:%-4d Type:DIRECT_ACCESS (Size:63M)", target.LUN(0)),
		fmt.Sprintf("Lun:%-4d Type:DIRECT_ACCESS (Size:127M)", target.LUN(1)),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("iscsi-ls -s does not say %q:\n%s", want, out)
		}
	}
}

func TestInquiry(t *testing.T) {
	inq := harness.Program(t, "iscsi-inq", "libiscsi-bin")
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"Peripheral Device Type:DIRECT_ACCESS", "3PC:1", "CmdQue:1"}},
		{page(0x00), []string{"Page:0x00", "Page:0x80", "Page:0x83", "Page:0x8f", "Page:0xb0", "Page:0xb1", "Page:0xb2"}},
		{page(0x80), []string{"Unit Serial Number:["}},
		{page(0x83), []string{"Association:(0) LOGICAL_UNIT", "Designator Type:(3) NAA"}},
		{page(0xb0), []string{"maximum transfer length:", "maximum unmap lba count:"}},
		{page(0xb1), []string{"Medium Rotation Rate:"}},
		{page(0xb2), []string{"lbpu:1", "lbpws:1", "lbpws10:1"}},
	} {
		out := harness.Run(ctx, t, inq, append(c.args, target.URL(0))...)
		for _, line := range c.want {
			if !strings.Contains(out, line) {
				t.Errorf("iscsi-inq %q does not say %q:\n%s", c.args, line, out)
			}
		}
	}
}

// page are the arguments of iscsi-inq for a VPD page; it wants decimal.
func page(code int) []string { return []string{"-e", "1", "-c", strconv.Itoa(code)} }

// TestConformance runs every suite of the program that applies to a disk on
// disks of each kind. A test that fails, hangs, or skips something for a reason
// that is not in maySkip, fails it.
func TestConformance(t *testing.T) {
	program := harness.Program(t, "iscsi-test-cu", "libiscsi-bin")
	all, err := List(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names {
		if !slices.ContainsFunc(all, func(s Suite) bool { return s.Name == name }) {
			t.Errorf("%s has no suite %s", program, name)
		}
	}
	for _, kind := range Kinds {
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel() // some suites mostly wait
			target := harness.Serve(t, kind.LUN)
			var results []Result
			for _, suite := range kind.plan(all) {
				t.Run(suite.Name, func(t *testing.T) {
					urls := []string{target.URL(0)}
					if suite.Name == "MultipathIO" {
						urls = append(urls, urls[0])
					}
					results = append(results, judge(t, target.Kind, program, suite, urls))
				})
			}
			harness.Report(t, "iscsi-test-cu on a "+kind.Name+" disk", Table(results))
		})
	}
}

// judge runs a suite, and fails the test where the suite is not as it must be.
func judge(t *testing.T, target, program string, suite Suite, urls []string) Result {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := Run(ctx, program, suite, urls...)
	if !r.OK() {
		t.Errorf("%d of %d tests failed; finished: %v\n%s", r.Failed, r.Ran, r.Finished, r.Complaints())
	}
	for _, s := range r.Skips {
		if why := because(suite.Name, s); why != "" {
			t.Logf("%s was skipped: %s", s.Test, why)
		} else if target == "odx" {
			t.Errorf("%s was skipped for something that the target lacks: %s", s.Test, s.Why)
		}
	}
	return r
}

// TestConformanceInPieces runs suites over a connection that delivers a few
// bytes at a time, so that headers, texts and data arrive torn anywhere.
func TestConformanceInPieces(t *testing.T) {
	program := harness.Program(t, "iscsi-test-cu", "libiscsi-bin")
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	var results []Result
	for _, c := range []struct {
		piece  int // bytes at most
		suites []Suite
	}{
		{1, []Suite{{Name: "Inquiry"}, {Name: "ReportSupportedOpcodes"}}},
		{13, []Suite{{Name: "iSCSIResiduals"}, {Name: "ModeSense6"}, {Name: "iSCSITMF"}}},
		{500, []Suite{{Name: "CompareAndWrite", Tests: []string{"Simple"}}, {Name: "Read16"}, {Name: "WriteVerify16"}}},
	} {
		p := harness.Proxy(t, target.Portal, c.piece)
		for _, suite := range c.suites {
			t.Run(fmt.Sprintf("%s/%d", suite.Name, c.piece), func(t *testing.T) {
				results = append(results, judge(t, target.Kind, program, suite, []string{target.URLVia(p.Addr(), 0)}))
			})
		}
	}
	harness.Report(t, "iscsi-test-cu, a few bytes at a time", Table(results))
}
