package main

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"odx/admin"
	"odx/api"
)

// counters returns counters of reads and writes.
func counters(reads, readBytes, writes, writtenBytes uint64) admin.Counters {
	return admin.Counters{Read: admin.KindCounters{Commands: reads, Bytes: readBytes}, Write: admin.KindCounters{Commands: writes, Bytes: writtenBytes}}
}

func stats(lun uint16, total, minute admin.Counters, initiators ...admin.InitiatorStats) admin.LUNStats {
	return admin.LUNStats{LUNName: admin.LUNName{Target: "t", Number: lun, Medium: "volume v"}, Total: total, Minute: minute, Initiators: initiators}
}

// Rates are of the time between two samples; of what is new, of the last minute. The
// busiest line is the first.
func TestSample_Since(t *testing.T) {
	begin := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	before := reading{begin, []admin.LUNStats{
		stats(0, counters(100, 1000, 0, 0), counters(1, 1, 1, 1)),
		stats(1, counters(500, 5000, 0, 0), counters(0, 0, 0, 0)),
	}}
	now := reading{begin.Add(2 * time.Second), []admin.LUNStats{
		stats(0, counters(120, 1200, 10, 100), counters(120, 1200, 10, 100)),
		stats(1, counters(6, 60, 0, 0), counters(120, 1200, 0, 0)), // it was removed and added
		stats(2, counters(60, 60000, 0, 0), counters(60, 60000, 0, 0)),
	}}
	type rates struct {
		lun                               string
		reads, readBytes, writes, written float64
	}
	of := func(lines []topLine) (got []rates) {
		for _, l := range lines {
			got = append(got, rates{l.lun, l.read.commands, l.read.bytes, l.write.commands, l.write.bytes})
		}
		return got
	}
	want := []rates{{"t/2", 1, 1000, 0, 0}, {"t/0", 10, 100, 5, 50}, {"t/1", 2, 20, 0, 0}}
	if got := of(now.since(&before, false)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	first := []rates{{"t/2", 1, 1000, 0, 0}, {"t/0", 2, 20, 10.0 / 60, 100.0 / 60}, {"t/1", 2, 20, 0, 0}}
	if got := of(now.since(&reading{}, false)); !reflect.DeepEqual(got, first) {
		t.Errorf("the first: got %v, want %v", got, first)
	}
}

func TestSample_Since_Initiators(t *testing.T) {
	begin := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	of := func(a, b uint64) []admin.LUNStats {
		return []admin.LUNStats{stats(0, counters(a+b, 0, 0, 0), admin.Counters{},
			admin.InitiatorStats{Initiator: "a", Total: counters(a, a, 0, 0)}, admin.InitiatorStats{Initiator: "b", Total: counters(b, b, 0, 0)})}
	}
	before, now := reading{begin, of(10, 10)}, reading{begin.Add(time.Second), of(11, 15)}
	lines := now.since(&before, true)
	if len(lines) != 2 || lines[0].what != "b" || lines[0].read.commands != 5 || lines[1].what != "a" || lines[1].read.commands != 1 {
		t.Errorf("got %+v", lines)
	}
}

// statsOnly is an admin.Live whose counters grow. It fails at first.
type statsOnly struct {
	admin.Live
	calls uint64
	fails []error
}

func (s *statsOnly) LUNStats(context.Context) ([]admin.LUNStats, error) {
	if len(s.fails) > 0 {
		err := s.fails[0]
		s.fails = s.fails[1:]
		return nil, err
	}
	s.calls++
	m := counters(60, 60<<20, 120, 0)
	m.Read.Mean, m.Read.P99 = 1234*time.Microsecond, 25*time.Millisecond
	return []admin.LUNStats{stats(7, counters(100*s.calls, s.calls<<30, 0, 0), m)}, nil
}

func TestTop(t *testing.T) {
	var out bytes.Buffer
	live := &statsOnly{fails: []error{api.ErrNoAnswer, admin.ErrNotRunning}} // between two processes
	if err := top(t.Context(), &out, live, &topOptions{interval: time.Hour, count: 1}); err != nil {
		t.Fatal(err)
	}
	const want = "READ/s  MiB/s  MEAN    P99   WRITE/s  MiB/s  MEAN  P99  OTHER/s  ERRORS/s  LUN  OF\n" +
		"1       1.0    1.23ms  25ms  2        0.0    -     -    0        0         t/7  volume v\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	other := errors.New("other")
	if err := top(t.Context(), &out, &statsOnly{fails: []error{other}}, &topOptions{interval: time.Hour, count: 1}); !errors.Is(err, other) {
		t.Errorf("error %v", err)
	}
	// It ends when the context does, without an error.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- top(ctx, &bytes.Buffer{}, live, &topOptions{interval: time.Hour}) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
