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

func TestTranslate(t *testing.T) {
	cause := &CorruptError{Name: "volume a", Offset: 8192, Err: errors.New("checksum mismatch")}
	for _, tt := range []struct {
		name string
		err  error
		want int64 // -1: no offset
	}{
		{"translated", Translate(cause, -4096), 4096},
		{"twice", Translate(Translate(cause, -4096), 512), 4608},
		{"at the same place", Translate(cause, 0), 8192},
		{"no damage", Translate(ErrBusy, 4096), -1},
		{"damage without an offset", Translate(ErrCorrupt, 4096), -1},
		{"of a table", Unreadable(cause, 512), 512},
		{"of a table, without an offset", Unreadable(ErrCorrupt, 512), 512},
		{"of a table, no damage", Unreadable(ErrBusy, 512), -1},
		{"the lower one", First(Translate(cause, 1), cause), 8192},
		{"the lower one, in the other order", First(cause, Translate(cause, 1)), 8192},
		{"what is no damage", First(cause, ErrBusy), -1},
		{"what is no damage, in the other order", First(ErrBusy, cause), -1},
		{"the only one", First(nil, cause), 8192},
		{"the only one, in the other order", First(cause, nil), 8192},
	} {
		t.Run(tt.name, func(t *testing.T) {
			corrupt, ok := errors.AsType[*CorruptError](tt.err)
			if !ok && tt.want >= 0 || ok && corrupt.Offset != tt.want {
				t.Errorf("%v, want offset %d", tt.err, tt.want)
			}
		})
	}
	if Translate(nil, 1) != nil || Unreadable(nil, 1) != nil || First(nil, nil) != nil {
		t.Error("an error of no error")
	}
}
