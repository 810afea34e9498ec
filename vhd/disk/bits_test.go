package disk_test

import (
	"math/rand/v2"
	"testing"

	"odx/vhd/disk"
)

// TestBits_Run compares runs of random bitmaps with a scan of single bits.
func TestBits_Run(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		n := 1 + r.Int64N(200)
		bits := make(disk.Bits, (n+7)/8)
		value := false
		for i := int64(0); i < n; {
			for end := min(n, i+1+r.Int64N(60)); i < end; i++ {
				if value {
					bits.Set(i)
				}
			}
			value = !value
		}
		i, n := r.Int64N(n), n-r.Int64N(min(n, 9))
		if i >= n {
			continue
		}
		want := int64(1)
		for i+want < n && bits.Get(i+want) == bits.Get(i) {
			want++
		}
		if set, got := bits.Run(i, n); set != bits.Get(i) || got != want {
			t.Fatalf("Run(%d, %d) of %08b = %v, %d, want %v, %d", i, n, bits, set, got, bits.Get(i), want)
		}
	}
}
