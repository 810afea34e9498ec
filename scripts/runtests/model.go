package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"
)

var modelTime = flag.Duration("model", time.Minute, "how long the stage model goes on with new histories")

// model is the stage in which the store proves its invariants: its own tests, those
// of the tokens and those of virtual disks, and random histories with power cuts for a
// while. The histories that need a second process or many clients run beside.
func model(out io.Writer) counts {
	timeout := fmt.Sprint("-timeout=", 5*time.Minute+*modelTime)
	checked := func(args ...string) func(io.Writer) counts {
		return goTest(append([]string{"-tags=invariants", "-count=1", timeout}, args...)...)
	}
	return sideBySide(out,
		checked("-run=^TestPowerCuts$", "./backstore", fmt.Sprint("-for=", *modelTime)),
		inTurn(
			checked("./backstore/...", "./tokens/..."),
			checked("-run=^TestEachFault$", "./backstore", "-everyfault=1"),
			checked("-run=^TestHistories$", "./vhd", "-rapid.checks=200"),
			checked("-run=^(TestKilledProcess|TestLinearizable)$", "./backstore", fmt.Sprint("-for=", *modelTime/4)),
		))
}

// inTurn is the stage that consists of others, one after the other.
func inTurn(runs ...func(io.Writer) counts) func(io.Writer) counts {
	return func(out io.Writer) (total counts) {
		for _, run := range runs {
			total.add(run(out))
		}
		return total
	}
}

// sideBySide runs stages at once and prints what each said, one after the other.
func sideBySide(out io.Writer, runs ...func(io.Writer) counts) (total counts) {
	said := make([]bytes.Buffer, len(runs))
	found := make([]counts, len(runs))
	var all sync.WaitGroup
	for i, run := range runs {
		all.Go(func() { found[i] = run(&said[i]) })
	}
	all.Wait()
	for i := range runs {
		_, _ = said[i].WriteTo(out)
		total.add(found[i])
	}
	return total
}
