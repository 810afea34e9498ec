package must_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"odx/internal/kit/must"
)

var _ = []must.TB{(*testing.T)(nil), (*testing.B)(nil), (*testing.F)(nil), (*rapid.T)(nil)}

// ended is a test that records what it was ended with.
type ended struct{ with []any }

func (e *ended) Helper()               {}
func (e *ended) Fatal(args ...any)     { e.with = append(e.with, args...) }
func (e *ended) Fatalf(string, ...any) {}

func TestSucceed(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	for name, tt := range map[string]struct {
		errs []error
		want error
	}{
		"nothing":   {nil, nil},
		"no error":  {[]error{nil, nil}, nil},
		"an error":  {[]error{first}, first},
		"later one": {[]error{nil, second, nil}, second},
	} {
		t.Run(name, func(t *testing.T) {
			var e ended
			must.Succeed(&e, tt.errs...)
			switch {
			case tt.want == nil && len(e.with) > 0:
				t.Errorf("ended with %v", e.with)
			case tt.want != nil && (len(e.with) != 1 || e.with[0] != tt.want):
				t.Errorf("ended with %v, want %v", e.with, tt.want)
			}
		})
	}
}
