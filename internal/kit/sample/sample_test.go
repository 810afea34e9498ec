package sample

import "testing"

func TestSize(t *testing.T) {
	for name, tt := range map[string]struct {
		short, all bool
		want       int
	}{
		"usual":  {want: 2},
		"-short": {short: true, want: 1},
		"-all":   {all: true, want: 3},
		"both":   {short: true, all: true, want: 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := size(tt.short, tt.all, 1, 2, 3); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
	want := 2
	if testing.Short() {
		want = 1
	}
	if *everything {
		want = 3
	}
	if got := Size(1, 2, 3); got != want {
		t.Errorf("Size is %d, want %d", got, want)
	}
}
