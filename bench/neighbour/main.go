// Command neighbour measures what a limit of a LUN (qos) does for the others: one LUN is
// limited to a tenth of the rate that it reaches alone, and another one is measured
// alternately alone and while as much as possible is asked of the limited one.
//
// On a machine with few processors the load generators compete with the server, too: with
// -depth 1 the neighbour leaves time to others, as most hosts do.
//
// usage: go run ./bench/neighbour [-size 1GiB] [-depth 32] [-runs 5] [-length 5s] [-dir DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"odx/bench/load"
	"odx/internal/kit"
)

// noiseDepth is the number of commands that the limited LUN has outstanding.
const noiseDepth = 32

func main() {
	size := flag.String("size", "1GiB", "size of each LUN, which is filled first")
	depth := flag.Int("depth", 32, "commands that the neighbour has outstanding")
	runs := flag.Int("runs", 5, "alternations")
	length := flag.Duration("length", 5*time.Second, "duration of a run")
	dir := flag.String("dir", "", "directory for the data (default: the system's temporary directory)")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	for _, op := range []string{"read", "write"} {
		if err := compare(ctx, op, *size, *dir, *depth, *runs, *length); err != nil {
			fmt.Fprintln(os.Stderr, "neighbour:", err)
			os.Exit(1)
		}
	}
}

// compare prints the medians for a neighbour that reads while the limited LUN reads or
// writes.
func compare(ctx context.Context, noise, size, dir string, depth, runs int, length time.Duration) (err error) {
	bytes, err := humanize.ParseBytes(size)
	if err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "odx-neighbour"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t, err := kit.StartODX(ctx, dir, []kit.LUN{{Size: int64(bytes)}, {Size: int64(bytes)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	for i := range t.LUNs {
		if _, err := load.Run(ctx, t.URL(i), "write", 1<<20, 8, length); err != nil {
			return err
		}
	}
	free, err := load.Run(ctx, t.URL(1), noise, 4<<10, noiseDepth, length, "random")
	if err != nil {
		return err
	}
	if err := t.Stop(); err != nil {
		return err
	}
	t.LUNs[1].IOPS = int(free.Rate() / 10)
	if err := t.Restart(ctx); err != nil {
		return err
	}
	var alone, together, limited []load.Result
	for range runs {
		a, err := load.Run(ctx, t.URL(0), "read", 4<<10, depth, length, "random")
		if err != nil {
			return err
		}
		b, n, err := withNoise(ctx, t, noise, depth, length)
		if err != nil {
			return err
		}
		alone, together, limited = append(alone, a), append(together, b), append(limited, n)
	}
	fmt.Printf("a LUN with random %ss of 4 KiB, %d outstanding, limited to %d a second: %.0f a second (alone without a limit: %.0f)\n",
		noise, noiseDepth, t.LUNs[1].IOPS, median(limited, load.Result.Rate), free.Rate())
	fmt.Printf("random reads of 4 KiB of its neighbour, %d outstanding, medians of %d alternations:\n", depth, runs)
	fmt.Printf("  a second: %.0f, alone %.0f: %.2f x\n", median(together, load.Result.Rate), median(alone, load.Result.Rate),
		median(together, load.Result.Rate)/median(alone, load.Result.Rate))
	fmt.Printf("  p99: %.0f us, alone %.0f us: %.2f x\n", median(together, p99), median(alone, p99), median(together, p99)/median(alone, p99))
	return nil
}

// withNoise measures the neighbour while the limited LUN is under load.
func withNoise(ctx context.Context, t *kit.Target, noise string, depth int, length time.Duration) (neighbour, limited load.Result, err error) {
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		limited, failed = load.Run(ctx, t.URL(1), noise, 4<<10, noiseDepth, length, "random")
	}()
	neighbour, err = load.Run(ctx, t.URL(0), "read", 4<<10, depth, length, "random")
	<-done
	return neighbour, limited, errors.Join(err, failed)
}

func p99(r load.Result) float64 { return float64(r.P99.Microseconds()) }

// median returns the median of a figure of results.
func median(results []load.Result, figure func(load.Result) float64) float64 {
	values := make([]float64, len(results))
	for i, r := range results {
		values[i] = figure(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
