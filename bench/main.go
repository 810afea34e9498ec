// Command bench compares odx with its peers on one machine. Each workload runs several
// times against each target, alternating between targets. The table has the medians
// and their ratio to the peer's. Then it times token copies, which peers do not
// support.
//
// Workloads are listed in workloads.go, peers in the variable peers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"odx/internal/kit"
)

func main() {
	var o options
	size := flag.String("size", "1GiB", "size of the LUN, which is filled first")
	flag.IntVar(&o.runs, "runs", 5, "runs of each workload per target")
	flag.DurationVar(&o.length, "length", 3*time.Second, "duration of a run")
	flag.IntVar(&o.tokens, "tokens", 200, "token copies to time; 0 skips them and the 1 TiB memory measurement")
	only := flag.String("only", "", "regular expression for the names of the workloads to run")
	flag.StringVar(&o.dir, "dir", "", "directory for the targets' data (default: the system's temporary directory)")
	flag.BoolVar(&o.store, "store", true, "run the workloads against the store")
	flag.BoolVar(&o.memory, "memory", true, "run the workloads against a LUN in memory")
	flag.StringVar(&o.profile, "profile", "", "file for a CPU profile of the workloads against a LUN in memory")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := start(ctx, o, *size, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	dir    string
	size   int64 // bytes
	runs   int
	length time.Duration
	tokens int
	only   *regexp.Regexp
	// store and memory select the workloads. profile is the file for a CPU profile of
	// the latter, or "".
	store, memory bool
	profile       string
}

func start(ctx context.Context, o options, size, only string) (err error) {
	bytes, err := humanize.ParseBytes(size)
	if err != nil {
		return err
	}
	o.size = int64(bytes)
	if o.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp(o.dir, "odx-bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	printMachine(os.Stdout, o)
	if o.store {
		if err := comparePeers(ctx, o); err != nil {
			return err
		}
	}
	if o.memory {
		if err := compareTransports(ctx, o); err != nil {
			return err
		}
	}
	if o.tokens == 0 {
		return nil
	}
	if err := timeTokens(ctx, o); err != nil {
		return err
	}
	return measureTebibyte(ctx, o)
}

// peers are the targets to compare, odx first. Ratios are to the second.
var peers = []struct {
	name  string
	start func(ctx context.Context, dir string, luns []kit.LUN) (*kit.Target, error)
}{
	{"odx", kit.StartODX},
	{"tgtd", kit.StartTGTD},
}

func comparePeers(ctx context.Context, o options) (err error) {
	var targets []*kit.Target
	defer func() {
		for _, t := range targets {
			err = errors.Join(err, t.Stop())
		}
	}()
	for _, p := range peers {
		dir := filepath.Join(o.dir, p.name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		t, err := p.start(ctx, dir, []kit.LUN{{Size: o.size}})
		if err != nil {
			return err
		}
		targets = append(targets, t)
		if err := fill(ctx, t); err != nil {
			return fmt.Errorf("fill the LUN of %s: %w", p.name, err)
		}
	}
	rows, err := measure(ctx, o, workloads, targets)
	if err != nil {
		return err
	}
	return printRows(os.Stdout, rows)
}

// measure runs the workloads that o selects, alternating between targets.
func measure(ctx context.Context, o options, workloads []workload, targets []*kit.Target) ([]row, error) {
	var rows []row
	for _, w := range workloads {
		if !o.only.MatchString(w.name) {
			continue
		}
		r := row{workload: w, rates: make([][]float64, len(targets))}
		for range o.runs {
			for i, t := range targets {
				rate, err := w.run(ctx, t, o.length)
				if err != nil {
					return nil, fmt.Errorf("%s against %s: %w", w.name, peers[i].name, err)
				}
				r.rates[i] = append(r.rates[i], rate)
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}
