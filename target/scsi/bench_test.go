package scsi

import (
	"context"
	"fmt"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
)

// benchmarkTask runs one command over and over as a transport does, on one
// reused Task.
func benchmarkTask(b *testing.B, cdb []byte, length int) {
	f := newFixture(b)
	ctx := context.Background()
	b.SetBytes(int64(length))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		task := NewTask(&f.pool)
		for pb.Next() {
			task.Reset(f.nexus, cdb)
			task.ExpectedOut, task.ExpectedIn = uint32(length), uint32(length)
			if f.target.Prepare(task) {
				b.Errorf("refused: % x", task.Sense())
				return
			}
			if task.Wanted > 0 {
				task.AllocDataOut(int(task.Wanted))
			}
			f.target.Execute(ctx, task)
			if task.Result != api.SAM_STAT_GOOD {
				b.Errorf("status %02Xh", task.Result)
				return
			}
			task.Release()
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, blocks := range []uint16{1, 16, 1024} {
		b.Run(fmt.Sprintf("%d bytes", int(blocks)*512), func(b *testing.B) {
			benchmarkTask(b, cdb10(0x28, 0, 64, blocks), int(blocks)*512)
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, blocks := range []uint16{1, 16, 1024} {
		b.Run(fmt.Sprintf("%d bytes", int(blocks)*512), func(b *testing.B) {
			benchmarkTask(b, cdb10(0x2A, 0, 64, blocks), int(blocks)*512)
		})
	}
}

func BenchmarkTestUnitReady(b *testing.B) { benchmarkTask(b, testUnitReady, 0) }

// TestReadAndWriteDoNotAllocate holds what the benchmarks show.
func TestReadAndWriteDoNotAllocate(t *testing.T) {
	f := newFixture(t)
	task := NewTask(&f.pool)
	ctx := context.Background()
	for _, cdb := range [][]byte{cdb10(0x28, 0, 64, 16), cdb10(0x2A, 0, 64, 16), cdb16(0x88, 0, 64, 16), cdb16(0x8A, 0, 64, 16)} {
		allocs := testing.AllocsPerRun(200, func() {
			task.Reset(f.nexus, cdb)
			task.ExpectedOut = 8192
			if !f.target.Prepare(task) {
				if task.Wanted > 0 {
					task.AllocDataOut(int(task.Wanted))
				}
				f.target.Execute(ctx, task)
			}
			task.Release()
		})
		if allocs >= 1 {
			t.Errorf("operation code %02Xh: %.1f allocations for one command", cdb[0], allocs)
		}
	}
}
