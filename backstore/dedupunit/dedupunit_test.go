package dedupunit

import (
	"errors"
	"fmt"
	"testing"

	"odx/backstore/extent"
)

// TestFinder_Best: one unit has to fit most blocks, and no other one nearly as many.
func TestFinder_Best(t *testing.T) {
	const looked = 1000
	for name, tt := range map[string]struct {
		wrong map[int]int // by unit; others are wrong for all blocks
		want  int         // 0: none
	}{
		"all fit":              {map[int]int{4: 0}, 4},
		"lost rows":            {map[int]int{4: 30, 8: 400}, 4},
		"two fit alike":        {map[int]int{4: 300, 8: 400}, 0},
		"all of two fit":       {map[int]int{1: 0, 16: 0}, 0},
		"none fits half of it": {map[int]int{2: 500}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := finder{looked: looked, wrong: make(map[int]int)}
			for unit := 1; unit <= extent.MaxUnit; unit *= 2 {
				f.wrong[unit] = looked
				if n, ok := tt.wrong[unit]; ok {
					f.wrong[unit] = n
				}
			}
			got, err := f.best()
			var unknown *UnknownError
			if got != tt.want || errors.As(err, &unknown) != (tt.want == 0) {
				t.Errorf("unit %d, %v, want %d", got, err, tt.want)
			}
			if unknown != nil && unknown.BestFit != looked-f.wrong[unknown.Best] {
				t.Errorf("%+v does not say what fits", fmt.Sprint(unknown))
			}
		})
	}
}
