//go:build rados

package ceph_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"odx/bench/load"
	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/must"
)

// speedTime is how long one side of a comparison is measured at a time.
const speedTime = 3 * time.Second

// BenchmarkServers_Depth1 compares writes of 4 KiB at a time through a server, each when the one
// before was answered and is durable, with what rados bench does at the same depth in the same
// cluster. Both differ by a factor of two between runs, and their ratio less: each iteration
// measures the one after the other, and the median of the ratios is reported.
func BenchmarkServers_Depth1(b *testing.B) {
	n := newNode(b, "a")
	n.start()
	n.await(serves)
	loaded(b, n.url(), 1) // volume and connections are warm
	compare(b, "rados-bench", func() float64 { return loaded(b, n.url(), 1) }, func() float64 { return radosBench(b, 1) })
}

// BenchmarkServers_Depth32 compares writes of 4 KiB, 32 at a time, through a server with those
// through tgtd, whose LUN is an image of RBD in the same pool. Both acknowledge what is durable:
// the write cache of the server is off, and that of librbd, too.
func BenchmarkServers_Depth32(b *testing.B) {
	url := startTGTD(b)
	n := newNode(b, "a")
	n.start()
	n.await(serves)
	loaded(b, n.url(), 32)
	loaded(b, url, 32) // the objects of the image are there
	compare(b, "tgtd", func() float64 { return loaded(b, n.url(), 32) }, func() float64 { return loaded(b, url, 32) })
}

// compare measures two rates after each other in each iteration, and reports the medians and that
// of their ratios.
func compare(b *testing.B, other string, ours, theirs func() float64) {
	var a, o, ratios []float64
	for b.Loop() {
		x, y := ours(), theirs()
		a, o, ratios = append(a, x), append(o, y), append(ratios, x/y)
	}
	for _, all := range [][]float64{a, o, ratios} {
		slices.Sort(all)
	}
	b.ReportMetric(0, "ns/op") // says nothing
	b.ReportMetric(a[len(a)/2], "writes/s")
	b.ReportMetric(o[len(o)/2], other+"-writes/s")
	b.ReportMetric(ratios[len(ratios)/2], "of-"+other)
	b.Logf("ratios to %s: %.2f", other, ratios)
}

// loaded returns the writes a second of 4 KiB, each of new data, to random places.
func loaded(b *testing.B, url string, depth int) float64 {
	b.Helper()
	r, err := load.Run(b.Context(), url, "write", blockBytes, depth, speedTime, "random")
	must.Succeed(b, err)
	return r.Rate()
}

// benchRate finds the mean rate in what rados bench prints.
var benchRate = regexp.MustCompile(`Average IOPS:\s+([0-9.]+)`)

// radosBench returns the writes a second of rados bench, each to an object of its own.
func radosBench(b *testing.B, depth int) float64 {
	b.Helper()
	out, err := exec.Command("rados", "-c", cluster.Conf(), "-p", cluster.Pool(), "-N", "bench", "bench",
		fmt.Sprint(int(speedTime.Seconds())), "write", "-b", fmt.Sprint(blockBytes), "-t", fmt.Sprint(depth)).Output()
	found := benchRate.FindSubmatch(out)
	if err != nil || found == nil {
		b.Fatalf("rados bench: %v: %s", err, out)
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	must.Succeed(b, err)
	return rate
}

// startTGTD starts tgtd with an image in the pool, and returns the URL of its LUN.
func startTGTD(b *testing.B) string {
	b.Helper()
	const plugin, image = "/usr/lib/tgt/backing-store/bs_rbd.so", "speed"
	if _, err := os.Stat(plugin); err != nil {
		harness.Missing(b, plugin+" (package tgt-rbd)")
	}
	temp, err := os.MkdirTemp("", "tgtd") // short: sockets are in it
	must.Succeed(b, err)
	b.Cleanup(func() { os.RemoveAll(temp) })
	conf := filepath.Join(temp, "ceph.conf")
	text, err := os.ReadFile(cluster.Conf())
	must.Succeed(b, err)
	text = fmt.Appendf(text, "[client]\nrbd_cache = false\nkeyring = %s\n", cluster.Keyring())
	must.Succeed(b, os.WriteFile(conf, text, 0o600))
	id := strings.TrimPrefix(cluster.User(), "client.")
	run(b, "rbd", "-c", conf, "--id", id, "create", "--size", fmt.Sprintf("%dB", lunBytes), "--image-feature", "layering", cluster.Pool()+"/"+image)

	t, err := kit.StartTGTD(b.Context(), temp, []kit.LUN{{Backing: []string{"--bstype", "rbd", "--bsopts", "conf=" + conf + ";id=" + id, "-b", cluster.Pool() + "/" + image}}})
	must.Succeed(b, err)
	b.Cleanup(func() { must.Succeed(b, t.Stop()) })
	return t.URL(0)
}

// run runs a program to its end.
func run(b *testing.B, args ...string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), takeOverMax)
	defer cancel()
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		must.Succeed(b, fmt.Errorf("%v: %w: %s", args, err, out))
	}
}
