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

	"odx/bench/load"
	"odx/internal/kit"
	"odx/internal/kit/tokenclient"
)

// workload measures the rate of a client on LUN 0 of a target. Higher is better.
type workload struct {
	name    string
	unit    string // of the rate
	command string // to reproduce it
	run     func(ctx context.Context, t *kit.Target, length time.Duration) (rate float64, err error)
}

var workloads = []workload{
	perf("random reads, 4 KiB, 32 outstanding (iscsi-perf)", "-m", "32", "-b", "8", "-r"),
	perf("random reads, 4 KiB, 1 outstanding (iscsi-perf)", "-m", "1", "-b", "8", "-r"),
	loaded("random reads, 4 KiB, 32 outstanding", "read", 4<<10, 32, "random"),
	loaded("sequential reads, 256 KiB, 8 outstanding", "read", 256<<10, 8),
	loaded("random writes of new data, 4 KiB, 32 outstanding", "write", 4<<10, 32, "random"),
	loaded("the same with a flush every 32", "write", 4<<10, 32, "random", "flush=32"),
	loaded("sequential writes of new data, 256 KiB, 8 outstanding", "write", 256<<10, 8),
	loaded("sequential writes of known data, 256 KiB, 8 outstanding", "write", 256<<10, 8, "same"),
	loaded("random reads, 4 KiB, 1 outstanding", "read", 4<<10, 1, "random"),
	loaded("random writes of new data, 4 KiB, 1 outstanding", "write", 4<<10, 1, "random"),
	qemuBench("scattered writes of known data, 4 KiB, 32 outstanding (qemu-img)", "-w", "-d", "32", "-s", "4096", "-S", "16781312", "--pattern=165"),
}

// loaded returns a workload of the load generator in bench/load.
func loaded(name, op string, size, depth int, words ...string) workload {
	return workload{
		name: name, unit: "IOPS",
		command: strings.TrimSpace(fmt.Sprintf("load URL %s %d %d SECONDS %s", op, size, depth, strings.Join(words, " "))),
		run: func(ctx context.Context, t *kit.Target, length time.Duration) (float64, error) {
			r, err := load.Run(ctx, t.URL(0), op, size, depth, length, words...)
			if err != nil {
				return 0, err
			}
			return r.Rate(), nil
		},
	}
}

// perf returns a workload of libiscsi's iscsi-perf, which supports only reads.
func perf(name string, args ...string) workload {
	return workload{
		name: name, unit: "IOPS",
		command: "iscsi-perf " + strings.Join(args, " "),
		run: func(ctx context.Context, t *kit.Target, length time.Duration) (float64, error) {
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

// qemuBench returns a workload of qemu-img bench. A short first run determines the
// number of requests for the duration of a run.
func qemuBench(name string, args ...string) workload {
	return workload{
		name: name, unit: "IOPS",
		command: "qemu-img bench " + strings.Join(args, " "),
		run: func(ctx context.Context, t *kit.Target, length time.Duration) (float64, error) {
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

// fill writes all of LUN 0, so that reads return data instead of holes.
func fill(ctx context.Context, t *kit.Target) error {
	return withSession(ctx, t, func(s *tokenclient.Session) error {
		a, err := s.Write(randomData(), 0, s.Blocks, tokenclient.WriteOptions{})
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

func withSession(ctx context.Context, t *kit.Target, f func(s *tokenclient.Session) error) (err error) {
	c, err := tokenclient.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	s, err := c.Open(t.URL(0), tokenclient.OpenOptions{})
	if err != nil {
		return err
	}
	return f(s)
}
