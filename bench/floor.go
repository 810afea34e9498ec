package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"odx/internal/kit/tokenclient"
)

// floor is the lower bound of the latency of a token copy over iSCSI: two command round
// trips, for POPULATE TOKEN and WRITE USING TOKEN, and one durable journal record for
// the token.
type floor struct {
	roundTrip, record []time.Duration
}

// measureFloor times TEST UNIT READY, and sequential 4 KiB writes with fdatasync to a
// file that, like the journal, is preallocated with zeros. The two alternate, so that
// CPU and disk are as idle before each as before the steps of a copy.
func measureFloor(dir string, s *tokenclient.Session, n int) (f floor, err error) {
	const page = 4096
	name := filepath.Join(dir, "floor")
	file, err := os.Create(name)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(name)) }()
	if _, err := file.Write(make([]byte, n*page)); err != nil {
		return f, err
	}
	if err := file.Sync(); err != nil {
		return f, err
	}
	p := make([]byte, page)
	for i := range n {
		a, err := s.Command(make([]byte, 6), nil, 0)
		if err == nil && !a.Good() {
			err = errors.New(a.String())
		}
		if err != nil {
			return f, fmt.Errorf("test unit ready: %w", err)
		}
		f.roundTrip = append(f.roundTrip, a.Elapsed)
		p[0] = byte(i)
		began := time.Now()
		if _, err := file.WriteAt(p, int64(i)*page); err != nil {
			return f, err
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return f, err
		}
		f.record = append(f.record, time.Since(began))
	}
	return f, nil
}

// printFloor prints the parts of the floor and their sum.
func printFloor(out io.Writer, f floor) error {
	fmt.Fprintf(out, "\nlower bound of populate + write on this machine; milliseconds\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmedian\tfastest\t")
	row := func(name string, median, fastest time.Duration) {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", name, ms(median), ms(fastest))
	}
	trip, record := median(f.roundTrip), median(f.record)
	least, leastRecord := quantile(f.roundTrip, 0), quantile(f.record, 0)
	row("TEST UNIT READY, round trip", trip, least)
	row("4 KiB appended and fdatasync", record, leastRecord)
	row("two commands and one record", 2*trip+record, 2*least+leastRecord)
	return w.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }
