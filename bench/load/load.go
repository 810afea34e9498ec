// Package load compiles and runs a load generator over libiscsi (client/load.c): reads
// or writes of one size at one queue depth, with new or known data. libiscsi's
// iscsi-perf supports only reads, and qemu-img bench repeats one pattern, which a
// deduplicating store does not store again.
package load

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"odx/internal/kit"
)

//go:embed client/load.c
var source []byte

// Result is the result of a run.
type Result struct {
	Commands uint64
	Seconds  float64
	// Median and P99 are the median and the 99th percentile of the latency of a command,
	// rounded down to microseconds.
	Median, P99 time.Duration
}

// Rate returns the commands per second.
func (r Result) Rate() float64 { return float64(r.Commands) / r.Seconds }

// Run applies load to a LUN for about length: op is read or write, size the bytes of a
// command, depth the number of outstanding commands. words are the options of the load
// generator: random, same, flush=N.
func Run(ctx context.Context, url, op string, size, depth int, length time.Duration, words ...string) (r Result, err error) {
	program, err := build(ctx)
	if err != nil {
		return r, err
	}
	seconds := strconv.FormatFloat(length.Seconds(), 'f', 3, 64)
	args := append([]string{url, op, strconv.Itoa(size), strconv.Itoa(depth), seconds}, words...)
	ctx, cancel := context.WithTimeout(ctx, length+time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return r, fmt.Errorf("load %v: %w\n%s", args, err, out)
	}
	var median, p99 int64
	if _, err := fmt.Sscanf(string(out), "commands %d seconds %g median %d us p99 %d us", &r.Commands, &r.Seconds, &median, &p99); err != nil {
		return r, fmt.Errorf("load %v printed %q: %w", args, out, err)
	}
	r.Median, r.P99 = time.Duration(median)*time.Microsecond, time.Duration(p99)*time.Microsecond
	return r, nil
}

// build compiles the program, once per version of its source.
func build(ctx context.Context) (string, error) {
	sum := sha256.Sum256(source)
	dir, err := kit.CacheDir("load-" + hex.EncodeToString(sum[:8]))
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "load")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	tmp, err := os.MkdirTemp(dir, "build")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	file, own := filepath.Join(tmp, "load.c"), filepath.Join(tmp, "load")
	if err := os.WriteFile(file, source, 0o600); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", own, file, "-liscsi").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile the load generator: %w\n%s", err, out)
	}
	return program, os.Rename(own, program)
}
