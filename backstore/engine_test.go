package backstore

import (
	"flag"
	"fmt"
	"testing"

	"odx/backstore/meta"
	"odx/backstore/meta/pebblekv"
	"odx/internal/kit/sample"
)

// testEngine has the metadata of the stores of tests that say nothing else.
var testEngine = meta.Tables()

func init() {
	flag.Func("engine", "the metadata engine of the stores of tests: tables or pebble", func(name string) error {
		for _, e := range []meta.Engine{meta.Tables(), pebblekv.Engine()} {
			if e.Kind().String() == name {
				testEngine = e
				return nil
			}
		}
		return fmt.Errorf("there is no engine %q", name)
	})
}

// TestPebble_Histories runs a sample of the histories of TestPowerCuts over Pebble; with
// -engine pebble all tests of this package run over it.
func TestPebble_Histories(t *testing.T) {
	before := testEngine
	testEngine = pebblekv.Engine()
	defer func() { testEngine = before }()
	forSeeds(t, sample.Size[uint64](1, 2, 6), func(t *testing.T, seed uint64) { runHistory(t, 1000+seed, 60) })
}
