package backstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkRecover opens a store whose process died with that much in the
// journal and nothing of it in a checkpoint.
func BenchmarkRecover(b *testing.B) {
	for _, bm := range []struct {
		name   string
		length int
		writes int
		flush  int // after so many writes; 0: never
	}{
		{"20,000 random writes of 4 KiB", 4 << 10, 20_000, 0},
		{"20,000 random writes of 4 KiB, flushed", 4 << 10, 20_000, 32},
		{"500 writes of 256 KiB", 256 << 10, 500, 0},
	} {
		b.Run(bm.name, func(b *testing.B) {
			ctx := context.Background()
			s, v := benchStoreWith(b, 1<<30, Options{CacheBytes: 2 << 30}) // no checkpoint becomes due
			rng := rand.New(rand.NewPCG(1, 2))
			p := make([]byte, bm.length)
			for i := range bm.writes {
				unique(p, rng.Uint64())
				if err := v.WriteAt(ctx, p, rng.Int64N(v.Size()/int64(len(p)))*int64(len(p))); err != nil {
					b.Fatal(err)
				}
				if bm.flush > 0 && i%bm.flush == 0 {
					if err := s.Flush(ctx); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := s.Flush(ctx); err != nil {
				b.Fatal(err)
			}
			var total time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				o := s.opts
				o.Dir = filepath.Join(b.TempDir(), fmt.Sprint(i))
				if err := os.CopyFS(o.Dir, os.DirFS(s.opts.Dir)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				start := time.Now()
				found, err := Open(ctx, o)
				total += time.Since(start)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := found.Close(); err != nil {
					b.Fatal(err)
				}
				os.RemoveAll(o.Dir)
				b.StartTimer()
			}
			b.ReportMetric(float64(total.Nanoseconds())/float64(b.N*bm.writes), "ns/write")
		})
	}
}
