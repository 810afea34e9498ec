package main

import "testing"

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []int
		q      float64
		want   int
	}{
		{[]int{7}, 0.5, 7},
		{[]int{3, 1, 2}, 0.5, 2},
		{[]int{5, 4, 3, 2, 1}, 0, 1},
		{[]int{5, 4, 3, 2, 1}, 1, 5},
		{[]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 0.9, 10},
	} {
		if got := quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %d, want %d", c.values, c.q, got, c.want)
		}
	}
}

func TestLastNumber(t *testing.T) {
	n, err := lastNumber(perfAverage, "00:00:01 - iops average 30801 (120 MB/s)\r\niops average 25927 (101 MB/s)\n")
	if err != nil || n != 25927 {
		t.Errorf("%v, %v", n, err)
	}
	if n, err := lastNumber(qemuSeconds, "Run failed"); err == nil {
		t.Errorf("lastNumber without a match = %v, want an error", n)
	}
}
