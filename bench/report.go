package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// row is a workload with its rates per peer, in the order of peers.
type row struct {
	workload
	rates [][]float64
}

// printMachine prints the machine, the date and the parameters.
func printMachine(w io.Writer, o options) {
	fmt.Fprintf(w, "%s; %d CPUs (%s); Linux %s; %s; data on %s\n", time.Now().Format(time.DateOnly), runtime.NumCPU(),
		processor(), release(), runtime.Version(), fileSystem(o.dir))
	fmt.Fprintf(w, "LUN of %s, filled; %d alternating runs of %v per target; medians\n\n",
		humanize.IBytes(uint64(o.size)), o.runs, o.length)
}

func printRows(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "workload\tunit")
	for _, p := range peers {
		fmt.Fprintf(w, "\t%s", p.name)
	}
	fmt.Fprintf(w, "\t%s/%s\tspread\tcommand\n", peers[0].name, peers[1].name)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s", r.name, r.unit)
		for _, rates := range r.rates {
			fmt.Fprintf(w, "\t%.0f", median(rates))
		}
		fmt.Fprintf(w, "\t%.2f\t", median(r.rates[0])/median(r.rates[1]))
		for i, rates := range r.rates {
			if i > 0 {
				fmt.Fprint(w, ", ")
			}
			fmt.Fprintf(w, "±%.0f%%", 50*(slices.Max(rates)-slices.Min(rates))/median(rates))
		}
		fmt.Fprintf(w, "\t%s\n", r.command)
	}
	return w.Flush()
}

// printLatencies prints the times of token copies, compared with a copy of the same
// data by reading and writing.
func printLatencies(out io.Writer, rows []latency, byReading time.Duration) error {
	n := len(rows[0].both)
	fmt.Fprintf(out, "\ntoken copies between LUNs, %d of each; milliseconds\n", n)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tpopulate\ttoken information\twrite\tall three\tpopulate + write: median\tp99\tmaximum\ttokens, writes per copy\tfactor to reading and writing 1 GiB\t")
	for _, l := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d, %d\t%.0f\t\n", l.name,
			ms(median(l.populate)), ms(median(l.inform)), ms(median(l.write)), ms(median(l.all)), ms(median(l.both)),
			ms(quantile(l.both, 0.99)), ms(slices.Max(l.both)), l.tokens/n, l.writes/n,
			float64(byReading)/float64(median(l.both)))
	}
	fmt.Fprintf(w, "1 GiB by reading and writing\t\t\t\t\t%.0f\t\t\t\t1\t\n", float64(byReading.Microseconds())/1000)
	return w.Flush()
}

func median[T cmp.Ordered](values []T) T { return quantile(values, 0.5) }

func quantile[T cmp.Ordered](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return string(bytes.TrimRight(u.Release[:], "\x00"))
}

func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "an unknown file system"
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	if name, ok := names[int64(s.Type)]; ok {
		return name
	}
	return fmt.Sprintf("a file system of type %x", s.Type)
}
