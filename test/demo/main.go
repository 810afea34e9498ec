// Command demo shows what a token copy is. It starts a target on a free port,
// writes to a LUN through libiscsi, copies that to another LUN once by reading
// and writing and once by token, reads both copies back over iSCSI, compares
// checksums and says what either way cost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/dustin/go-humanize"
)

func main() {
	size := flag.String("size", "1GiB", "how much to write and copy")
	dir := flag.String("dir", "", "directory to make the store in (default: the system's for temporary files)")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	bytes, err := humanize.ParseBytes(*size)
	if err == nil {
		err = inDir(*dir, func(dir string) error {
			return run(ctx, options{dir: dir, size: int64(bytes), out: os.Stdout})
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// inDir does f with a temporary directory inside parent.
func inDir(parent string, f func(dir string) error) error {
	dir, err := os.MkdirTemp(parent, "odx-demo")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}

type options struct {
	dir  string
	size int64 // bytes, a multiple of 1 MiB
	out  io.Writer
	// started, if set, is called with the target's port before the first login, and
	// returns what to call at the end.
	started func(port int) (stop func() error, err error)
}
