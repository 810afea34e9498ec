package backstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"odx/internal/kit/logs"
)

func benchStore(b *testing.B, size int64) (*Store, *Volume) {
	b.Helper()
	return benchStoreWith(b, size, Options{})
}

func benchStoreWith(b *testing.B, size int64, o Options) (*Store, *Volume) {
	b.Helper()
	o.Dir, o.Log = b.TempDir(), logs.Discard()
	s, err := Open(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	v, err := s.CreateVolume(context.Background(), "bench", size)
	if err != nil {
		b.Fatal(err)
	}
	return s, v
}

// unique makes every 4 KiB block of p new data.
func unique(p []byte, seed uint64) {
	for i := 0; i < len(p); i += BlockLength {
		binary.LittleEndian.PutUint64(p[i:], seed)
		binary.LittleEndian.PutUint64(p[i+8:], uint64(i))
	}
}

func benchFill(b *testing.B, v *Volume, length int64) {
	b.Helper()
	rng := rand.NewChaCha8([32]byte{1})
	p := make([]byte, 1<<20)
	for off := int64(0); off < length; off += int64(len(p)) {
		rng.Read(p)
		if err := v.WriteAt(context.Background(), p, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := v.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkReadRandom4K(b *testing.B) {
	_, v := benchStore(b, 256<<20)
	benchFill(b, v, v.Size())
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 4096)
	ctx := context.Background()
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if err := v.ReadAt(ctx, p, rng.Int64N(v.Size()/4096)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, bm := range []struct {
		name   string
		length int
		unique bool
		dedup  bool
	}{
		{"random 4K new", 4096, true, true},
		{"random 4K new, dedup off", 4096, true, false},
		{"random 4K duplicate", 4096, false, true},
		{"256K new", 256 << 10, true, true},
		{"256K new, dedup off", 256 << 10, true, false},
		{"256K duplicate", 256 << 10, false, true},
	} {
		b.Run(bm.name, func(b *testing.B) {
			_, v := benchStoreWith(b, 1<<30, Options{StoreDuplicates: !bm.dedup})
			rng := rand.New(rand.NewPCG(1, 2))
			p := make([]byte, bm.length)
			unique(p, 1)
			ctx := context.Background()
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for n := uint64(0); b.Loop(); n++ {
				if bm.unique {
					unique(p, n)
				}
				if err := v.WriteAt(ctx, p, rng.Int64N(v.Size()/int64(len(p)))*int64(len(p))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFlushAfter4K(b *testing.B) {
	_, v := benchStore(b, 256<<20)
	p := make([]byte, 4096)
	ctx := context.Background()
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		unique(p, n)
		if err := v.WriteAt(ctx, p, int64(n%1000)*4096); err != nil {
			b.Fatal(err)
		}
		if err := v.Flush(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCopy is a snapshot and a copy of it, flushed in between as a token
// is; shifted copies move slots, congruent ones share nodes.
func BenchmarkCopy(b *testing.B) {
	const source = 1 << 30
	for _, bm := range []struct {
		length, shift int64
	}{{256 << 20, 0}, {1 << 30, 0}, {256 << 20, 4096}, {1 << 30, 4096}} {
		b.Run(fmt.Sprintf("%d MiB shifted by %d", bm.length>>20, bm.shift), func(b *testing.B) {
			s, v := benchStore(b, 4<<30)
			benchFill(b, v, source)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				n, err := v.Snapshot(ctx, []Range{{Length: bm.length}}, nil)
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Flush(ctx); err != nil {
					b.Fatal(err)
				}
				for done := int64(0); done < bm.length; {
					k, err := v.Map(ctx, 2<<30+bm.shift+done, n, done, bm.length-done)
					if err != nil {
						b.Fatal(err)
					}
					done += k
				}
				if err := s.DeleteSnapshot(ctx, n.ID()); err != nil {
					b.Fatal(err)
				}
				n.Release()
			}
		})
	}
}

// BenchmarkCopyClones copies up to 1 TiB of mapped space, built from clones of
// 1 GiB. The shifted copies run once each: go test -bench 'Clones' -benchtime 1x.
func BenchmarkCopyClones(b *testing.B) {
	const gib = 1 << 30
	s, v := benchStore(b, 3<<40)
	ctx := context.Background()
	benchFill(b, v, gib)
	copyRange := func(b *testing.B, dst, length int64) {
		b.Helper()
		n, err := v.Snapshot(ctx, []Range{{Length: length}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer n.Release()
		if err := s.Flush(ctx); err != nil {
			b.Fatal(err)
		}
		for done := int64(0); done < length; {
			k, err := v.Map(ctx, dst+done, n, done, length-done)
			if err != nil {
				b.Fatal(err)
			}
			done += k
		}
		if err := s.DeleteSnapshot(ctx, n.ID()); err != nil {
			b.Fatal(err)
		}
	}
	for size := int64(gib); size < 1<<40; size *= 2 {
		copyRange(b, size, size)
	}
	for _, bm := range []struct {
		gibs, shift int64
	}{{1, 0}, {16, 0}, {256, 0}, {1024, 0}, {1, 4096}, {16, 4096}, {1024, 4096}} {
		b.Run(fmt.Sprintf("%d GiB shifted by %d", bm.gibs, bm.shift), func(b *testing.B) {
			for b.Loop() {
				copyRange(b, 1<<40+bm.shift, bm.gibs*gib)
			}
		})
	}
}

// BenchmarkWhileCleaning times reads and writes of 4 KiB while segments are
// cleaned without a pause at the default budget.
func BenchmarkWhileCleaning(b *testing.B) {
	for _, cleaning := range []bool{false, true} {
		b.Run(fmt.Sprintf("cleaning %v", cleaning), func(b *testing.B) {
			s, v := benchStore(b, 512<<20)
			benchFill(b, v, v.Size())
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			if cleaning {
				wg.Go(func() { cleanForever(ctx, s) })
			}
			rng := rand.New(rand.NewPCG(1, 2))
			p := make([]byte, 4096)
			var reads, writes []time.Duration
			for n := uint64(1); b.Loop(); n++ {
				start := time.Now()
				if err := v.ReadAt(ctx, p, rng.Int64N(v.Size()/4096)*4096); err != nil {
					b.Fatal(err)
				}
				reads = append(reads, time.Since(start))
				unique(p, n)
				start = time.Now()
				if err := v.WriteAt(ctx, p, rng.Int64N(v.Size()/4096)*4096); err != nil {
					b.Fatal(err)
				}
				writes = append(writes, time.Since(start))
			}
			cancel()
			wg.Wait()
			for name, d := range map[string][]time.Duration{"read": reads, "write": writes} {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)*99/100].Nanoseconds())/1e3, name+"-p99-µs")
				b.ReportMetric(float64(d[len(d)*999/1000].Nanoseconds())/1e3, name+"-p999-µs")
			}
		})
	}
}

// BenchmarkCleanSegment moves 32 MiB to another segment.
func BenchmarkCleanSegment(b *testing.B) {
	const size = 32 << 20
	s, v := benchStoreWith(b, size, Options{DedupUnit: 16 << 10})
	benchFill(b, v, size)
	ctx := context.Background()
	unlimited := rate.NewLimiter(rate.Inf, 0)
	s.cleaner.mu.Lock() // no other cleaning
	defer s.cleaner.mu.Unlock()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s.parts.segments.Seal()
		if err := s.Checkpoint(ctx); err != nil {
			b.Fatal(err)
		}
		sealed, live, _ := s.cleaner.sealedSegments()
		if live != size/BlockLength {
			b.Fatalf("%d blocks are live in %d segments", live, len(sealed))
		}
		b.StartTimer()
		for _, sp := range sealed {
			if err := s.cleaner.cleanSegment(ctx, sp.id, unlimited); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// cleanForever cleans the segments with the most dead data, one after the other.
func cleanForever(ctx context.Context, s *Store) {
	for ctx.Err() == nil {
		sealed, _, _ := s.cleaner.sealedSegments()
		for _, sp := range sealed {
			if sp.live == 0 || ctx.Err() != nil {
				continue
			}
			s.cleaner.mu.Lock()
			err := s.cleaner.cleanSegment(ctx, sp.id, s.cleaner.budget)
			s.cleaner.mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}

// processorTime returns what the process has used, which next to other work says more than
// the time that passed.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMapKnown maps 256 MiB that came from another store before, and lists the runs
// of as much.
func BenchmarkMapKnown(b *testing.B) {
	const size = 256 << 20
	ctx := context.Background()
	a, src := benchStore(b, size)
	benchFill(b, src, size)
	n, err := src.Snapshot(ctx, []Range{{Length: size}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer n.Release()
	var runs []Run
	collect := func(r Run) error {
		r.Slots, r.CRC = slices.Clone(r.Slots), slices.Clone(r.CRC)
		runs = append(runs, r)
		return nil
	}
	if err := n.Runs(ctx, 0, size, collect); err != nil {
		b.Fatal(err)
	}
	b.Run("runs", func(b *testing.B) {
		b.ReportAllocs()
		began := processorTime(b)
		for b.Loop() {
			if err := n.Runs(ctx, 0, size, func(Run) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op")
	})
	for _, unit := range []int{4 << 10, 16 << 10} {
		s, kept := benchStoreWith(b, size, Options{DedupUnit: unit})
		p := make([]byte, 1<<20)
		for off := int64(0); off < size; off += 1 << 20 {
			if err := src.ReadAt(ctx, p, off); err != nil {
				b.Fatal(err)
			}
			var part []Run
			if err := n.Runs(ctx, off, 1<<20, func(r Run) error {
				r.Slots, r.CRC = slices.Clone(r.Slots), slices.Clone(r.CRC)
				part = append(part, r)
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			if err := kept.WriteKnown(ctx, a.ID(), p, off, part); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Checkpoint(ctx); err != nil {
			b.Fatal(err)
		}
		for name, fresh := range map[string]bool{"to a hole": true, "over the same": false} {
			b.Run(fmt.Sprintf("map %s, unit %d", name, unit), func(b *testing.B) {
				v, err := s.CreateVolume(ctx, "to", size)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				used := time.Duration(0)
				for b.Loop() {
					if fresh {
						b.StopTimer()
						if err := v.Unmap(ctx, 0, size); err != nil {
							b.Fatal(err)
						}
						if err := s.reapAll(ctx); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
					began := processorTime(b)
					missing, err := v.MapKnown(ctx, a.ID(), 0, runs)
					used += processorTime(b) - began
					if err != nil || len(missing) > 0 {
						b.Fatalf("%d ranges are missing, %v", len(missing), err)
					}
				}
				b.StopTimer()
				b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
				if err := s.DeleteVolume(ctx, "to"); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkDiff finds what differs between snapshots of a volume.
func BenchmarkDiff(b *testing.B) {
	const size = 1 << 40
	ctx := context.Background()
	s, v := benchStore(b, size)
	for _, mapped := range []string{"holes", "mapped"} {
		if mapped == "mapped" { // 1 MiB, shared until the volume is full
			p := make([]byte, 2<<20)
			unique(p, 1)
			if err := v.WriteAt(ctx, p, 0); err != nil {
				b.Fatal(err)
			}
			for done := int64(len(p)); done < size; done *= 2 {
				n, err := v.Snapshot(ctx, []Range{{Length: done}}, nil)
				if err != nil {
					b.Fatal(err)
				}
				for at := int64(0); at < done; {
					k, err := v.Map(ctx, done+at, n, at, done-at)
					if err != nil {
						b.Fatal(err)
					}
					at += k
				}
				n.Release()
			}
		}
		base, err := v.Snapshot(ctx, []Range{{Length: size}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer base.Release()
		rng := rand.New(rand.NewPCG(1, 1))
		p := make([]byte, BlockLength)
		for i := range 1000 {
			unique(p, uint64(i)<<20)
			if err := v.WriteAt(ctx, p, rng.Int64N(size/BlockLength)*BlockLength); err != nil {
				b.Fatal(err)
			}
		}
		n, err := v.Snapshot(ctx, []Range{{Length: size}}, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer n.Release()
		b.Run("1 TiB, "+mapped+", 1000 blocks", func(b *testing.B) {
			b.ReportAllocs()
			began := processorTime(b)
			for b.Loop() {
				found := int64(0)
				if err := n.Diff(ctx, base, 0, size, func(d Difference) error {
					found += d.Length
					return nil
				}); err != nil || found == 0 || found > 1000*BlockLength {
					b.Fatalf("%d bytes differ, %v", found, err)
				}
			}
			b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
	if err := s.Flush(ctx); err != nil {
		b.Fatal(err)
	}
}
