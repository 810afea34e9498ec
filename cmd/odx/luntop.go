package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

// topOptions are the flags of odx lun top.
type topOptions struct {
	adminOptions
	interval   time.Duration
	count      int
	initiators bool
}

func newLUNTop() *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what is done with the LUNs, the busiest first, again and again",
		Long: "Show commands and bytes per second and latencies of the LUNs, the busiest first, and again after\n" +
			"each interval until Ctrl-C. The first figures are those of the last minute. On a terminal the table\n" +
			"stays in its place; otherwise it is printed again, by default only once.\n\n" +
			"MEAN and P99 are of the last minute: the mean latency, and the one that 99 % of the commands did\n" +
			"not exceed. With --initiators, the first table comes after an interval, and latencies are of all\n" +
			"commands of the initiator.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.interval < 100*time.Millisecond {
				return usagef("--interval %v: use at least 100ms", o.interval)
			}
			if o.count < 0 {
				return usagef("--count %d is negative; use 0 for no end", o.count)
			}
			if !cmd.Flags().Changed("count") && !isTerminal(cmd.OutOrStdout()) {
				o.count = 1
			}
			return withServing(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, live admin.Live) error {
				return top(ctx, cmd.OutOrStdout(), live, &o)
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "`TIME` between tables")
	cmd.Flags().IntVar(&o.count, "count", 0, "`NUMBER` of tables (0: until Ctrl-C; default 1 if the output is not a terminal)")
	cmd.Flags().BoolVar(&o.initiators, "initiators", false, "a line for each initiator of a LUN")
	return cmd
}

// top prints a table after each interval, until ctx ends.
func top(ctx context.Context, w io.Writer, live admin.Live, o *topOptions) error {
	ticks := time.NewTicker(o.interval)
	defer ticks.Stop()
	var before reading
	n := 1
	if o.initiators && !o.json { // their counters of the last minute are not known
		n = 0
	}
	for ; ; n++ {
		list, err := statsBetween(ctx, live)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how it ends
		}
		if err != nil {
			return err
		}
		now := reading{time.Now(), list}
		switch {
		case n == 0:
		case o.json:
			err = json.NewEncoder(w).Encode(each(list, api.LUNStatsV1))
		default:
			err = printTop(w, now.since(&before, o.initiators))
		}
		if err != nil || n > 0 && n == o.count {
			return err
		}
		before = now
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

// statsBetween is LUNStats, which waits while another process takes over.
func statsBetween(ctx context.Context, live admin.Live) ([]admin.LUNStats, error) {
	for end := time.Now().Add(betweenLimit); ; {
		list, err := live.LUNStats(ctx)
		if err == nil || !between(err) || time.Now().After(end) {
			return list, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// reading is the counters at a time.
type reading struct {
	at   time.Time
	luns []admin.LUNStats
}

// topKey identifies a line of the table in several samples.
type topKey struct{ lun, what string }

// totals returns the counters by line. In a table of initiators, what is the initiator.
func (s *reading) totals(initiators bool) map[topKey]admin.Counters {
	all := map[topKey]admin.Counters{}
	for i := range s.luns {
		l := &s.luns[i]
		name := fmt.Sprintf("%s/%d", l.Target, l.Number)
		if !initiators {
			all[topKey{name, l.Medium}] = l.Total
		}
		for _, in := range l.Initiators {
			if initiators {
				all[topKey{name, in.Initiator}] = in.Total
			}
		}
	}
	return all
}

// topLine is a line of the table: rates per second, and latencies of the last minute.
type topLine struct {
	topKey
	read, write, other topRate // other: unmap and copy
}

type topRate struct {
	commands, bytes, errors float64
	mean, p99               time.Duration
}

func (l *topLine) bytes() float64    { return l.read.bytes + l.write.bytes + l.other.bytes }
func (l *topLine) commands() float64 { return l.read.commands + l.write.commands + l.other.commands }
func (l *topLine) errors() float64   { return l.read.errors + l.write.errors + l.other.errors }

// since returns the lines for the time since an earlier reading, the busiest first. For
// what is not in it, rates are those of the last minute.
func (s *reading) since(before *reading, initiators bool) []topLine {
	var lines []topLine
	known, seconds := before.totals(initiators), s.at.Sub(before.at).Seconds()
	add := func(key topKey, total, minute *admin.Counters) {
		was, ok := known[key]
		if ok = ok && !counted(total).less(counted(&was)); !ok { // it began again
			lines = append(lines, newTopLine(key, minute, &admin.Counters{}, minute, time.Minute.Seconds()))
			return
		}
		lines = append(lines, newTopLine(key, total, &was, minute, seconds))
	}
	for i := range s.luns {
		l := &s.luns[i]
		name := fmt.Sprintf("%s/%d", l.Target, l.Number)
		if !initiators {
			add(topKey{name, l.Medium}, &l.Total, &l.Minute)
			continue
		}
		for j := range l.Initiators {
			in := &l.Initiators[j]
			if was, ok := known[topKey{name, in.Initiator}]; ok && !counted(&in.Total).less(counted(&was)) {
				add(topKey{name, in.Initiator}, &in.Total, &in.Total)
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b topLine) int {
		return cmp.Or(cmp.Compare(b.bytes(), a.bytes()), cmp.Compare(b.commands(), a.commands()))
	})
	return lines
}

// counts are the sums of counters of all kinds.
type counts struct{ commands, bytes uint64 }

func counted(c *admin.Counters) (sum counts) {
	for _, k := range []*admin.KindCounters{&c.Read, &c.Write, &c.Unmap, &c.Copy} {
		sum.commands += k.Commands
		sum.bytes += k.Bytes
	}
	return sum
}

func (c counts) less(o counts) bool { return c.commands < o.commands || c.bytes < o.bytes }

// newTopLine returns the rates of what now has more than was, in a number of seconds.
func newTopLine(key topKey, now, was, minute *admin.Counters, seconds float64) topLine {
	rate := func(now, was, minute *admin.KindCounters) topRate {
		return topRate{
			commands: float64(now.Commands-was.Commands) / seconds,
			bytes:    float64(now.Bytes-was.Bytes) / seconds,
			errors:   float64(now.Errors-was.Errors) / seconds,
			mean:     minute.Mean, p99: minute.P99,
		}
	}
	unmap, copied := rate(&now.Unmap, &was.Unmap, &minute.Unmap), rate(&now.Copy, &was.Copy, &minute.Copy)
	return topLine{
		topKey: key, read: rate(&now.Read, &was.Read, &minute.Read), write: rate(&now.Write, &was.Write, &minute.Write),
		other: topRate{commands: unmap.commands + copied.commands, bytes: unmap.bytes + copied.bytes, errors: unmap.errors + copied.errors},
	}
}

// printTop prints a table; on a terminal in place of the one before, with the lines that
// fit.
func printTop(w io.Writer, lines []topLine) error {
	var b strings.Builder
	height := len(lines)
	if f, ok := w.(*os.File); ok && isTerminal(w) {
		const clear = "\x1b[H\x1b[2J" // ECMA-48: cursor to the first place, erase the page
		b.WriteString(clear)
		if _, rows, err := term.GetSize(int(f.Fd())); err == nil {
			height = min(height, max(rows-2, 1))
		}
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "READ/s\tMiB/s\tMEAN\tP99\tWRITE/s\tMiB/s\tMEAN\tP99\tOTHER/s\tERRORS/s\tLUN\tOF")
	for i := range lines[:height] {
		l := &lines[i]
		fmt.Fprintf(table, "%.0f\t%.1f\t%s\t%s\t%.0f\t%.1f\t%s\t%s\t%.0f\t%.3g\t%s\t%s\n",
			l.read.commands, l.read.bytes/(1<<20), latencyText(l.read.mean), latencyText(l.read.p99),
			l.write.commands, l.write.bytes/(1<<20), latencyText(l.write.mean), latencyText(l.write.p99),
			l.other.commands, l.errors(), l.lun, l.what)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// latencyText returns a latency with three digits, "-" for none.
func latencyText(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(10 * time.Millisecond).String()
	}
}
