package peer

import (
	"testing"

	"odx/blockdev"
)

// TestNextJob: a job that takes several frames has whole blocks alone, so that each frame can be
// verified by itself; all of a range comes, in order.
func TestNextJob(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name  string
		shift int64
		in    []blockdev.Range
		want  []int64 // lengths of jobs
	}{
		{"whole blocks", 4096, []blockdev.Range{{Offset: 4096, Length: 9 * mib}}, []int64{4 * mib, 4 * mib, mib}},
		{"not of the hold", 512, []blockdev.Range{{Offset: 0, Length: 2 * mib}}, []int64{mib - 65024, mib, 65024}},
		{"a part of a block after whole ones", 0, []blockdev.Range{{Offset: 0, Length: 2 * mib}, {Offset: 3 * mib, Length: 512}}, []int64{2 * mib, 512}},
		{"whole blocks after a part of one", 0, []blockdev.Range{{Offset: 0, Length: 512}, {Offset: mib, Length: 2 * mib}}, []int64{512 + mib - 65536, mib + 65536}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			missing, left := append([]blockdev.Range(nil), tt.in...), sum(tt.in)
			for i := 0; len(missing) > 0; i++ {
				var j *job
				j, missing = nextJob(missing, tt.shift, maxPiece)
				t.Logf("job %d: %v", i, j.ranges)
				if j.length != sum(j.ranges) || i >= len(tt.want) || j.length != tt.want[i] {
					t.Fatalf("job %d has %d bytes, want %v", i, j.length, tt.want)
				}
				left -= j.length
				for _, r := range j.ranges {
					if j.length > maxContent && ((r.Offset-tt.shift)%blockLength != 0 || r.Length%blockLength != 0) {
						t.Errorf("job %d of %d bytes cuts a block: %v", i, j.length, r)
					}
				}
			}
			if left != 0 {
				t.Errorf("%d bytes are in no job", left)
			}
		})
	}
}
