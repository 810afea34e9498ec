package suites

import (
	"reflect"
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
			want: Result{Ran: 3, Passed: 1, Skipped: 1, Skips: []string{"not thin", "again"}, Failed: 1, Finished: true},
		},
		{
			name: "all well",
			out:  head + "  Test: Simple ...passed    [SKIPPED] after it\n [SKIPPED] and later\n" + tail + "    tests      1      1      1      0        0\n",
			want: Result{Ran: 1, Passed: 1, Finished: true},
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
