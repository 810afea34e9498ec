// Command virtualdisks measures the operations on virtual disks against qemu-img. A
// raw disk, half of it data that occurs once, in extents of 1 to 64 MiB spread over
// it, is put into a store and lies in a host file too. Then each operation runs
// several times: as an odx command that asks a running server, and, on host files, as
// the qemu-img command that has the same outcome. It prints a Markdown table with the
// medians: of the odx command from its start to its end, and the longest of these (the
// first one after a start of the server finds nothing in its caches); of the operation
// in the server; of the qemu-img command, and how many times as long as the odx
// command it takes.
//
// qemu-img leaves what it writes in the page cache; what odx did is durable. Before
// each run both write out what they have in memory, so that no run waits for what
// others left.
//
// usage: go run ./bench/virtualdisks [-size 10GiB] [-runs 3] [-only REGEXP] [-cache SIZE] [-dir FOLDER]
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
	runs := flag.Int("runs", 3, "runs of every operation")
	only := flag.String("only", "", "regular expression for the names of the operations to run")
	cache := flag.String("cache", "256MiB", "store.cache in the server's configuration, the default of which is 256MiB")
	dir := flag.String("dir", "", "folder for the data (default: the system's for temporary files)")
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
	fmt.Fprintf(out, "disk of %s, %s of it data; medians of %d runs in turn\n\n", humanize.IBytes(bytes), humanize.IBytes(uint64(b.data)), runs)
	fmt.Fprintln(out, "| operation | odx, command | longest | odx, operation | `qemu-img` | ratio | aim | mapped | moved |")
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
