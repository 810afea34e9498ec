package blockdev

import (
	"errors"
	"math"
	"testing"
)

func TestRange_In(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    Range
		size int64
		want bool
	}{
		{"whole device", Range{0, 100}, 100, true},
		{"inside", Range{10, 20}, 100, true},
		{"empty at the end", Range{100, 0}, 100, true},
		{"empty after the end", Range{101, 0}, 100, false},
		{"past the end", Range{90, 11}, 100, false},
		{"negative offset", Range{-1, 1}, 100, false},
		{"negative length", Range{1, -1}, 100, false},
		{"end overflows", Range{1, math.MaxInt64}, 100, false},
		{"largest device", Range{1, math.MaxInt64 - 1}, math.MaxInt64, true},
		{"smallest length", Range{0, math.MinInt64}, 100, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.r.In(tt.size); got != tt.want {
				t.Errorf("%+v in %d bytes: %v", tt.r, tt.size, got)
			}
		})
	}
}

func TestCorruptError_Unwrap(t *testing.T) {
	cause := errors.New("checksum mismatch")
	var err error = &CorruptError{Name: "volume a", Offset: 4096, Err: cause}
	if !errors.Is(err, ErrCorrupt) || !errors.Is(err, cause) {
		t.Errorf("%v wraps neither its kind nor its cause", err)
	}
	if got, want := err.Error(), "volume a: block at byte 4096: checksum mismatch"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
