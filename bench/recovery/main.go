// Command recovery measures the startup time of odx after SIGKILL. It fills a LUN with
// unique data and repeatedly applies load, kills the server under load, and times the
// next start. It also reports the CPU time, which dominates on a busy machine.
//
// usage: go run ./bench/recovery [-size 10GiB] [-kills 6] [-dir DIR]
package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"odx/bench/load"
	"odx/internal/kit"
	"odx/internal/kit/tokenclient"
)

// longestLoad bounds the duration of load before the kill.
const longestLoad = 10 * time.Second

func main() {
	size := flag.String("size", "10GiB", "size of the LUN, which is filled first")
	kills := flag.Int("kills", 6, "number of kills")
	dir := flag.String("dir", "", "directory for the data (default: the system's temporary directory)")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *size, *kills, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "recovery:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, size string, kills int, dir string) (err error) {
	bytes, err := humanize.ParseBytes(size)
	if err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "odx-recovery"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t, err := kit.StartODX(ctx, dir, []kit.LUN{{Size: int64(bytes)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	start := time.Now()
	if err := fill(ctx, t); err != nil {
		return fmt.Errorf("fill the LUN: %w", err)
	}
	fmt.Printf("%s written in %.0f s\n", size, time.Since(start).Seconds())
	if err := killAndRestart(ctx, t, "right after that"); err != nil {
		return err
	}
	for i := range kills {
		l := loads[i%len(loads)]
		lasted, err := loadUntilKilled(ctx, t, l)
		if err != nil {
			return err
		}
		if err := killAndRestart(ctx, t, fmt.Sprintf("%.1f s into %s", lasted.Seconds(), l.name)); err != nil {
			return err
		}
	}
	return nil
}

// kind is the load when the server is killed. All data is new.
type kind struct {
	name  string
	size  int
	words []string
}

var loads = []kind{
	{"random writes of 4 KiB", 4 << 10, []string{"random"}},
	{"random writes of 4 KiB with a flush every 32", 4 << 10, []string{"random", "flush=32"}},
	{"sequential writes of 256 KiB", 256 << 10, nil},
}

// loadUntilKilled kills the server under load and returns the duration of the load.
func loadUntilKilled(ctx context.Context, t *kit.Target, k kind) (lasted time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := load.Run(ctx, t.URL(0), "write", k.size, 32, 2*longestLoad, k.words...)
		ended <- err
	}()
	lasted = longestLoad/2 + rand.N(longestLoad/2)
	select {
	case err := <-ended:
		return 0, fmt.Errorf("the load ended before the server was killed: %w", err)
	case <-time.After(lasted):
		err := t.Kill()
		cancel() // the client would log in again
		<-ended  //nolint:errcheck // of a server that was killed
		return lasted, err
	}
}

// killAndRestart kills the server, if it is running, starts it, and prints the time
// until it reports readiness.
func killAndRestart(ctx context.Context, t *kit.Target, when string) error {
	if err := t.Kill(); err != nil {
		return err
	}
	start := time.Now()
	if err := t.Restart(ctx); err != nil {
		return err
	}
	took := time.Since(start)
	cpu, err := t.ProcessorTime()
	if err != nil {
		return err
	}
	fmt.Printf("ready in %4d ms (CPU time %d ms) after SIGKILL %s\n", took.Milliseconds(), cpu.Milliseconds(), when)
	return nil
}

// fill writes unique data to the whole LUN.
func fill(ctx context.Context, t *kit.Target) (err error) {
	c, err := tokenclient.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	s, err := c.Open(t.URL(0), tokenclient.OpenOptions{})
	if err != nil {
		return err
	}
	var seed [32]byte
	crand.Read(seed[:])
	a, err := s.Write(rand.NewChaCha8(seed), 0, s.Blocks, tokenclient.WriteOptions{})
	if err != nil || !a.Good() {
		return fmt.Errorf("%v, %w", a, err)
	}
	return s.Close()
}
