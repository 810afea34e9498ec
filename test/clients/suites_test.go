package clients

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const head = "    CUnit\n [SKIPPED] before any test\n\nSuite: Unmap\n"
	const tail = "\n\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n"
	for _, c := range []struct {
		name, out string
		want      Result
		ok        bool
	}{
		{
			name: "one of each",
			out: head + "  Test: Simple ...passed\n  Test: VPD ...    [SKIPPED] not thin\n [SKIPPED] again\npassed\n" +
				"  Test: ZeroBlocks ...    [FAILED] sense\nFAILED\n    1. test_unmap.c:88  - CU_FAIL\n" + tail +
				"   suites      1      1    n/a      0        0\n    tests      3      3      2      1        0\n  asserts      2      2      2      0      n/a\n",
			want: Result{Ran: 3, Passed: 1, Skipped: 1, Skips: []Skip{{"VPD", "not thin"}, {"VPD", "again"}}, Failed: 1, Finished: true},
		},
		{
			name: "all well",
			out:  head + "  Test: Simple ...passed    [SKIPPED] after it\n [SKIPPED] and later\n" + tail + "    tests      1      1      1      0        0\n",
			want: Result{Ran: 1, Passed: 1, Finished: true},
			ok:   true,
		},
		{
			name: "with each command",
			out: head + "  Test: Eject ...\n    Test that it ejects\n    [OK] INQUIRY passed by\n    [SKIPPED] LUN is not removable.\npassed    Send PRIN\n    [SKIPPED] no PRIN\n" + tail +
				"    tests      1      1      1      0        0\n",
			want: Result{Ran: 1, Skipped: 1, Skips: []Skip{{"Eject", "LUN is not removable."}}, Finished: true},
			ok:   true,
		},
		{
			name: "no such suite",
			out:  tail + "    tests      0      0      0      0        0\n",
			want: Result{Finished: true},
		},
		{
			name: "ended in the middle",
			out:  head + "  Test: Simple ...passed\n  Test: VPD ...",
			want: Result{},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parse(c.out)
			got.Output = ""
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if got.OK() != c.ok {
				t.Errorf("OK() = %v, want %v", got.OK(), c.ok)
			}
		})
	}
}

func TestComplaints(t *testing.T) {
	r := Result{Finished: true, Output: strings.Repeat("[OK]\n", 100) + "Send UNMAP\n[FAILED] sense\nFAILED\n" + strings.Repeat("[OK]\n", 100)}
	if got := r.Complaints(); !strings.HasPrefix(got, "[OK]\n") || !strings.HasSuffix(got, "Send UNMAP\n[FAILED] sense\nFAILED\n") || len(got) > 200 {
		t.Errorf("got %q", got)
	}
	r = Result{Output: "Send UNMAP\nhung"}
	if got := r.Complaints(); got != "Send UNMAP\nhung\n" {
		t.Errorf("a suite that did not end: got %q", got)
	}
}

func TestBecause(t *testing.T) {
	for _, c := range []struct {
		suite string
		skip  Skip
		may   bool
	}{
		{"WriteSame10", Skip{"ZeroBlocks", "WRITESAME10 does not support 0-blocks."}, true},
		{"WriteSame10", Skip{"ZeroBlocks", "WRITESAME10 is not implemented."}, false},
		{"WriteSame10", Skip{"Simple", "WRITESAME10 does not support 0-blocks."}, false},
		{"PreventAllow", Skip{"2ITNexuses", "Logical unit is not removable."}, true},
	} {
		if got := because(c.suite, c.skip); (got != "") != c.may {
			t.Errorf("%s %v: because %q", c.suite, c.skip, got)
		}
	}
}

// TestPlan checks that each test of a program is run on some disk.
func TestPlan(t *testing.T) {
	all := []Suite{{"GetLBAStatus", []string{"Simple", "UnmapSingle"}}, {"ReadOnly", []string{"ReadOnlySBC"}}, {"Unmap", []string{"VPD"}}}
	ran := map[string]bool{}
	for _, kind := range Kinds {
		for _, suite := range kind.plan(all) {
			ran[suite.pattern()] = true
		}
	}
	for _, want := range []string{"ALL.GetLBAStatus", "ALL.GetLBAStatus.Simple", "ALL.ReadOnly", "ALL.Unmap"} {
		if !ran[want] {
			t.Errorf("%s is run on no disk; these are: %v", want, ran)
		}
	}
}
