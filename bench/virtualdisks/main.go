// Command virtualdisks compares operations on virtual disks with qemu-img. The input is
// a raw disk, in a store and in a host file. Half of it is unique data, in ranges of 1
// to 64 MiB. Each operation runs several times: as an odx command to a running server,
// and as the equivalent qemu-img command on host files. The output is a Markdown table
// with the median and maximum duration of the odx command (the first one after a start
// of the server has cold caches), and the medians of the operation in the server, of
// the qemu-img command, and of the ratio of qemu-img to odx.
//
// qemu-img leaves its output in the page cache; the output of odx is durable. Both are
// flushed before each run, so that no run waits for the writes of another.
//
// usage: go run ./bench/virtualdisks [-size 10GiB] [-runs 3] [-only REGEXP] [-cache SIZE] [-dir DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/dustin/go-humanize"
)

func main() {
	size := flag.String("size", "10GiB", "capacity of the disk, half of which is data")
	runs := flag.Int("runs", 3, "runs per operation")
	only := flag.String("only", "", "regular expression for the names of the operations to run")
	cache := flag.String("cache", "256MiB", "store.cache of the server")
	dir := flag.String("dir", "", "directory for the data (default: the system's temporary directory)")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Stdout, *size, *runs, *only, *cache, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "virtualdisks:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, size string, runs int, only, cache, dir string) (err error) {
	bytes, err := humanize.ParseBytes(size)
	if err != nil {
		return err
	}
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "odx-virtualdisks"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := prepare(ctx, dir, cache, int64(bytes))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.target.Stop()) }()
	fmt.Fprintf(out, "disk of %s, %s of it data; medians of %d alternating runs\n\n", humanize.IBytes(bytes), humanize.IBytes(uint64(b.data)), runs)
	fmt.Fprintln(out, "| operation | odx, command | maximum | odx, operation | `qemu-img` | ratio | goal | mapped | moved |")
	fmt.Fprintln(out, "|---|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, o := range operations {
		if !chosen.MatchString(o.name) {
			continue
		}
		r, err := b.measure(ctx, o, runs)
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		r.print(out, o)
	}
	return nil
}
