package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

var modelTime = flag.Duration("model", time.Minute, "duration of the random histories in stage model")

// exhaustive are tests of the store that take a sample of their cases in the other stages.
// Here they run all.
var exhaustive = []string{
	"TestEachFault", "TestHostErrors", "TestUpgrade_PowerCut", "TestDamage", "TestRepair_PowerCuts", "TestRepair_PowerCutsToDirectory",
	"TestRepair_SwapFails", "TestRepair_NothingOlder", "TestJournalFileThatCannotBeOpened", "TestFullDisk_EachBlockTaken",
	"TestOpen_NameIsNoProof", "TestHarmlessNames", "TestVolume_Revert_PowerCut", "TestDamage_Several", "TestFullDisk_CleaningInterrupted",
}

// model is the stage that checks the invariants of the store: the tests of the store,
// tokens and virtual disks, and concurrently random histories with power failures. Of the
// server it runs what takes too long for the unit tests.
func model(out io.Writer) counts {
	timeout := fmt.Sprint("-timeout=", 5*time.Minute+*modelTime)
	checked := func(args ...string) func(io.Writer) counts {
		return goTest(append([]string{"-tags=invariants", "-count=1", timeout}, args...)...)
	}
	return concurrently(out,
		checked("-run=^TestPowerCuts$", "./backstore", fmt.Sprint("-for=", *modelTime)),
		sequentially(
			checked("./backstore/...", "./tokens/...", "./offload/..."),
			checked("-run=^("+strings.Join(exhaustive, "|")+")$", "./backstore", "-all"),
			checked("-run=^TestReconfigure_Model$", "./target/scsi", "-all"),
			checked("-run=^TestHistories$", "./vhd", "-rapid.checks=200"),
			checked("-run=^TestServe_Memory$", "./cmd/odx", "-all"),
			checked("-run=^(TestKilledProcess|TestLinearizable)$", "./backstore", fmt.Sprint("-for=", *modelTime/4)),
		))
}

// sequentially returns a stage that runs others one after the other.
func sequentially(runs ...func(io.Writer) counts) func(io.Writer) counts {
	return func(out io.Writer) (total counts) {
		for _, run := range runs {
			total.add(run(out))
		}
		return total
	}
}

// concurrently runs stages at once and prints their outputs one after the other.
func concurrently(out io.Writer, runs ...func(io.Writer) counts) (total counts) {
	outputs := make([]bytes.Buffer, len(runs))
	found := make([]counts, len(runs))
	var all sync.WaitGroup
	for i, run := range runs {
		all.Go(func() { found[i] = run(&outputs[i]) })
	}
	all.Wait()
	for i := range runs {
		_, _ = outputs[i].WriteTo(out)
		total.add(found[i])
	}
	return total
}
