package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"odx/test/tokencopy"
	"odx/test/undertest"
)

// workload is something that a client does to LUN 0 of a target, and the rate
// it reaches. Higher is better.
type workload struct {
	name    string
	unit    string // of the rate
	command string // what a person would type to see it
	run     func(ctx context.Context, t *undertest.Target, length time.Duration) (rate float64, err error)
}

var workloads = []workload{
	perf("random reads, 4 KiB, 32 outstanding", "-m", "32", "-b", "8", "-r"),
	perf("random reads, 4 KiB, 1 outstanding", "-m", "1", "-b", "8", "-r"),
	perf("sequential reads, 256 KiB, 8 outstanding", "-m", "8", "-b", "512"),
	qemuBench("sequential writes, 4 KiB, 32 outstanding", "-w", "-d", "32", "-s", "4096"),
	qemuBench("scattered writes, 4 KiB, 32 outstanding", "-w", "-d", "32", "-s", "4096", "-S", "16781312"),
	qemuBench("writes, 4 KiB, 16 outstanding, flush every 16", "-w", "-d", "16", "-s", "4096", "--flush-interval=16"),
	{
		name: "sequential writes, 256 KiB, 8 outstanding", unit: "MiB/s",
		command: "tokencopy: write lba=0 blocks=...",
		run:     sequentialWrites,
	},
}

// perf is a workload of libiscsi's iscsi-perf, which only reads.
func perf(name string, args ...string) workload {
	return workload{
		name: name, unit: "IOPS",
		command: "iscsi-perf " + strings.Join(args, " "),
		run: func(ctx context.Context, t *undertest.Target, length time.Duration) (float64, error) {
			seconds := strconv.Itoa(max(1, int(length.Seconds())))
			out, err := output(ctx, length, "iscsi-perf", append(args, "-t", seconds, t.URL(0))...)
			if err != nil {
				return 0, err
			}
			return lastNumber(perfAverage, out)
		},
	}
}

var perfAverage = regexp.MustCompile(`iops average (\d+)`)

// qemuBench is a workload of qemu-img bench. How many requests take about the
// length of a run is found by a short run first.
func qemuBench(name string, args ...string) workload {
	return workload{
		name: name, unit: "IOPS",
		command: "qemu-img bench " + strings.Join(args, " "),
		run: func(ctx context.Context, t *undertest.Target, length time.Duration) (float64, error) {
			rate := func(requests int) (float64, error) {
				all := append([]string{"bench", "-f", "raw", "-t", "none", "-c", strconv.Itoa(requests)}, args...)
				out, err := output(ctx, time.Minute, "qemu-img", append(all, t.URL(0))...)
				if err != nil {
					return 0, err
				}
				seconds, err := lastNumber(qemuSeconds, out)
				return float64(requests) / seconds, err
			}
			guess, err := rate(2000)
			if err != nil {
				return 0, err
			}
			return rate(max(2000, int(guess*length.Seconds())))
		},
	}
}

var qemuSeconds = regexp.MustCompile(`Run completed in ([\d.]+) seconds`)

func lastNumber(pattern *regexp.Regexp, out string) (float64, error) {
	all := pattern.FindAllStringSubmatch(out, -1)
	if all == nil {
		return 0, fmt.Errorf("no %q in: %s", pattern, out)
	}
	return strconv.ParseFloat(all[len(all)-1][1], 64)
}

func output(ctx context.Context, length time.Duration, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, length+time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %v: %w\n%s", program, args, err, out)
	}
	return string(out), nil
}

// sequentialWrites writes new random data for about the length of a run.
func sequentialWrites(ctx context.Context, t *undertest.Target, length time.Duration) (rate float64, err error) {
	err = withSession(ctx, t, func(s *tokencopy.Session) error {
		data := randomData()
		var bytes, seconds float64
		const step = 64 << 20
		for lba := uint64(0); seconds < length.Seconds(); lba += step / uint64(s.BlockLength) {
			if lba+step/uint64(s.BlockLength) > s.Blocks {
				lba = 0
			}
			a, err := s.Write(data, lba, step/uint64(s.BlockLength), tokencopy.WriteOptions{})
			if err != nil || !a.Good() {
				return fmt.Errorf("write: %v, %w", a, err)
			}
			bytes += step
			seconds += a.Elapsed.Seconds()
		}
		rate = bytes / (1 << 20) / seconds
		return nil
	})
	return rate, err
}

// fill writes all of LUN 0, so that reads find data and not holes.
func fill(ctx context.Context, t *undertest.Target) error {
	return withSession(ctx, t, func(s *tokencopy.Session) error {
		a, err := s.Write(randomData(), 0, s.Blocks, tokencopy.WriteOptions{})
		if err == nil && a.Good() {
			a, err = s.Flush()
		}
		if err == nil && !a.Good() {
			err = errors.New(a.String())
		}
		return err
	})
}

func randomData() io.Reader {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	return rand.NewChaCha8(seed)
}

func withSession(ctx context.Context, t *undertest.Target, f func(s *tokencopy.Session) error) (err error) {
	c, err := tokencopy.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	s, err := c.Open(t.URL(0), tokencopy.OpenOptions{})
	if err != nil {
		return err
	}
	return f(s)
}
