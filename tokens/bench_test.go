package tokens_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"odx/backstore"
	"odx/internal/kit/logs"
	"odx/offload/offloadtest"
	"odx/tokens"
)

// instant is the in-memory twin without its durability, whose cost grows with what is
// stored. It closes a channel when a number of snapshots was deleted.
type instant struct {
	*offloadtest.Store
	left int // deletions before gone is closed
	gone chan struct{}
}

func (instant) Flush(context.Context) error { return nil }

func (s *instant) DeleteSnapshot(ctx context.Context, id uint64, recs ...backstore.Record) error {
	if s.left--; s.left == 0 {
		close(s.gone)
	}
	return s.Store.DeleteSnapshot(ctx, id, recs...)
}

// liveCounts are the numbers of live tokens between which the cost of one must
// not grow much.
var liveCounts = []int{100, 100_000}

// withLive returns a manager with n live tokens, and the last of them.
func withLive(b *testing.B, s *instant, n int) (*tokens.Manager, *offloadtest.Volume, *tokens.Token) {
	v := s.NewVolume("v", volumeSize)
	m := open(b, s, tokens.Limits{Tokens: n + 1, MinInactivity: time.Nanosecond})
	var last *tokens.Token
	for range n {
		last = mustRead(b, m, v, ranges(0, 512), tokens.ReadOptions{InactivityTimeout: 10 * time.Minute})
	}
	return m, v, last
}

func BenchmarkTokensLookup(b *testing.B) {
	for _, n := range liveCounts {
		b.Run(fmt.Sprintf("live=%d", n), func(b *testing.B) {
			m, _, tok := withLive(b, &instant{Store: offloadtest.NewStore([16]byte{1})}, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Lookup(tok); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTokensCreateDelete makes a token and deletes it while n others live.
func BenchmarkTokensCreateDelete(b *testing.B) {
	for _, n := range liveCounts {
		b.Run(fmt.Sprintf("live=%d", n), func(b *testing.B) {
			m, v, _ := withLive(b, &instant{Store: offloadtest.NewStore([16]byte{1})}, n)
			b.ReportAllocs()
			for b.Loop() {
				tok := mustRead(b, m, v, ranges(0, 512), tokens.ReadOptions{})
				if err := m.Delete(ctx, tok.ID(), tokens.Deleted); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTokensExpire makes n tokens of which all have expired, and waits for their
// end.
func BenchmarkTokensExpire(b *testing.B) {
	for _, n := range liveCounts {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			begin := time.Now()
			total := 0
			for b.Loop() {
				s := &instant{Store: offloadtest.NewStore([16]byte{1}), left: n, gone: make(chan struct{})}
				v := s.NewVolume("v", 512)
				m := open(b, s, tokens.Limits{MinInactivity: time.Nanosecond})
				for range n {
					mustRead(b, m, v, ranges(0, 512), tokens.ReadOptions{InactivityTimeout: 1})
				}
				<-s.gone
				total += n
			}
			b.ReportMetric(float64(time.Since(begin).Nanoseconds())/float64(total), "ns/token")
		})
	}
}

// BenchmarkTokensMemory makes live tokens and reports what one takes of the heap, and
// what the manager estimates.
func BenchmarkTokensMemory(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		s := &instant{Store: offloadtest.NewStore([16]byte{1})}
		m := liveOnly(b, s, n)
		estimated := m.Stats().MemoryBytes
		with := heapBytes()
		// What is left without the manager is the store's.
		runtime.KeepAlive(m)
		if err := m.Close(); err != nil {
			b.Fatal(err)
		}
		m = nil
		s.OnFull(nil)
		without := heapBytes()
		runtime.KeepAlive(s)
		b.ReportMetric(float64(with-without)/n, "heap-B/token")
		b.ReportMetric(float64(estimated)/n, "estimated-B/token")
	}
}

func heapBytes() int64 {
	runtime.GC()
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	return int64(st.HeapAlloc)
}

// liveOnly returns a manager with n live tokens that nothing else refers to.
func liveOnly(b *testing.B, s *instant, n int) *tokens.Manager {
	m, err := tokens.Open(ctx, tokens.Options{Store: s, Log: logs.Discard(), Limits: tokens.Limits{Tokens: n}})
	if err != nil {
		b.Fatal(err)
	}
	v := s.NewVolume("v", volumeSize)
	o := tokens.ReadOptions{Creator: tokens.Creator{Initiator: "iqn.1991-05.com.microsoft:host-1", Target: "iqn.2026-11.com.example:disks", Volume: "v"}}
	for range n {
		mustRead(b, m, v, ranges(0, 512), o)
	}
	return m
}
