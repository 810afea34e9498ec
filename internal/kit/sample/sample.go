// Package sample says how much of their cases the exhaustive tests run. go test -short runs
// few of them: that is for the race detector, which finds races and not cases, at many times
// the cost. go test runs a sample that takes seconds, and go test -all all of them:
//
//	go test ./backstore -run TestDamage -all
//
// No test is skipped under -short for its length alone; it takes a smaller sample.
package sample

import (
	"flag"
	"testing"
)

// everything is a flag of the test binaries whose tests take samples.
var everything = flag.Bool("all", false, "exhaustive tests run all of their cases, not a sample")

// Size returns how large a sample is: short under -short, all with -all, and usual without
// either. What it counts is up to the test: of how many cases it runs one, or how many
// random histories.
func Size[N int | int64 | uint64](short, usual, all N) N {
	return size(testing.Short(), *everything, short, usual, all)
}

func size[N int | int64 | uint64](isShort, isAll bool, short, usual, all N) N {
	switch {
	case isAll:
		return all
	case isShort:
		return short
	}
	return usual
}
