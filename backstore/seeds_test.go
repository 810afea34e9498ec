package backstore

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Randomized tests run with a few seeds that are always the same. For longer
// runs, and to repeat one that failed:
//
//	go test ./backstore -run 'TestPowerCuts|TestLinearizable' -for 1h -timeout 0
//	go test ./backstore -run TestPowerCuts -seed 1234
var (
	runFor  = flag.Duration("for", 0, "how long each randomized test goes on with new seeds")
	oneSeed = flag.Uint64("seed", 0, "the only seed that randomized tests use; 0: many")
)

// forSeeds calls run in a subtest for each of n seeds, and then for new ones
// until the time that -for gives is over.
func forSeeds(t *testing.T, n uint64, run func(t *testing.T, seed uint64)) {
	start := time.Now()
	try := func(seed uint64) bool {
		return t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { run(t, seed) })
	}
	if *oneSeed != 0 {
		try(*oneSeed)
		return
	}
	for seed := range n {
		try(1 + seed)
	}
	for next := rand.Uint64(); time.Since(start) < *runFor && !t.Failed(); next++ {
		try(next)
	}
}
