package journal

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

func openBench(b *testing.B) *Journal {
	b.Helper()
	j, err := createOpen(Options{FS: vfs.OS(), Dir: filepath.Join(b.TempDir(), "j"), StoreID: store}, ignore)
	must.Succeed(b, err)
	b.Cleanup(func() { must.Succeed(b, j.Close()) })
	return j
}

// BenchmarkJournal_Append includes writing and syncing in the background, which frees
// memory for more records.
func BenchmarkJournal_Append(b *testing.B) {
	for _, n := range []int{100, 4096, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			j := openBench(b)
			head, data := make([]byte, 32), make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := j.Reserve(ctx, len(head)+len(data)); err != nil {
					b.Fatal(err)
				}
				j.Append(head, data)
				if i%10000 == 9999 { // a checkpoint
					first, err := j.Rotate()
					must.Succeed(b, err)
					must.Succeed(b, j.Truncate(first))
				}
			}
		})
	}
}

func BenchmarkJournal_Commit1KiB(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dwriters", writers), func(b *testing.B) {
			j := openBench(b)
			data := make([]byte, 1024)
			b.ReportAllocs()
			work := make(chan struct{})
			var all sync.WaitGroup
			for range writers {
				all.Go(func() {
					for range work {
						must.Succeed(b, j.Reserve(ctx, len(data)))
						must.Succeed(b, j.Commit(ctx, j.Append(nil, data)))
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			all.Wait()
		})
	}
}

// BenchmarkFdatasync measures the effect of preallocation: writes of 1 KiB to a file of
// zeros and to one that grows.
func BenchmarkFdatasync(b *testing.B) {
	const length = 32 << 20
	for _, kind := range []string{"growing", "preallocated"} {
		b.Run(kind, func(b *testing.B) {
			f, err := vfs.OS().Create(filepath.Join(b.TempDir(), "f"))
			must.Succeed(b, err)
			defer f.Close()
			if kind == "preallocated" {
				_, err = f.WriteAt(make([]byte, length), 0)
				must.Succeed(b, err)
				must.Succeed(b, f.Sync())
			}
			p := make([]byte, 1024)
			for i := 0; b.Loop(); i++ {
				if _, err := f.WriteAt(p, int64(i%(length>>10))<<10); err != nil {
					b.Fatal(err)
				}
				must.Succeed(b, f.Sync())
			}
		})
	}
}

func BenchmarkOpen_Replay(b *testing.B) {
	m := vfs.NewMem()
	o := Options{FS: m, Dir: "/j", StoreID: store}
	j, err := createOpen(o, ignore)
	must.Succeed(b, err)
	data := make([]byte, 4096)
	const records = 4096
	for i := range records {
		data[0] = byte(i)
		must.Succeed(b, j.Reserve(ctx, len(data)))
		j.Append(nil, data)
	}
	must.Succeed(b, j.Close())
	b.SetBytes(records * 4096)
	b.ReportAllocs()
	for b.Loop() {
		j, err := Open(ctx, o, ignore)
		must.Succeed(b, err)
		must.Succeed(b, j.Close())
	}
}
