package bufpool

import "testing"

func TestPool_Get(t *testing.T) {
	var p Pool
	for _, n := range []int{0, 1, 511, 512, 513, 4096, 4097, 1 << 20, 1 << 24, 1<<24 + 1} {
		b := p.Get(n)
		if len(b.Bytes) != n {
			t.Errorf("Get(%d): len = %d", n, len(b.Bytes))
		}
		p.Put(b)
	}
}

func TestClassOf(t *testing.T) {
	tests := []struct{ n, class int }{
		{0, 0}, {512, 0}, {513, 1}, {1024, 1}, {1025, 2}, {1 << 24, maxShift - minShift}, {1<<24 + 1, -1},
	}
	for _, tt := range tests {
		if got := classOf(tt.n); got != tt.class {
			t.Errorf("classOf(%d) = %d, want %d", tt.n, got, tt.class)
		}
	}
}

func BenchmarkPool(b *testing.B) {
	var p Pool
	b.ReportAllocs()
	for b.Loop() {
		p.Put(p.Get(8192))
	}
}
