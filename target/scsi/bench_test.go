package scsi

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"odx/backstore"
	"odx/blockdev"
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
			if task.Result != StatusGood {
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

// TestReadWrite_Allocations holds what the benchmarks show.
func TestReadWrite_Allocations(t *testing.T) {
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

// BenchmarkGetLBAStatus asks for the first extent of a volume of the store: all
// of it is mapped, every other block is, or nothing is, of 256 MiB.
func BenchmarkGetLBAStatus(b *testing.B) {
	const chunk = 1 << 20
	for _, layout := range []struct {
		name string
		data []byte
		room uint32
	}{
		{"mapped", pattern(chunk, 1), 24},
		{"holes", make([]byte, chunk), 24},
		{"alternating", alternating(chunk), 65536},
	} {
		b.Run(layout.name, func(b *testing.B) {
			f, _ := newStoreFixture(b, backstore.Options{}, 256*chunk)
			for at := int64(0); at < 256*chunk; at += chunk {
				if err := f.lu.Volume().WriteAt(b.Context(), layout.data, at); err != nil {
					b.Fatal(err)
				}
			}
			task := NewTask(&f.pool)
			b.ReportAllocs()
			for b.Loop() {
				task.Reset(f.nexus, getLBAStatus(0, layout.room))
				if f.target.Prepare(task) {
					b.Fatalf("refused: % x", task.Sense())
				}
				f.target.Execute(b.Context(), task)
			}
		})
	}
}

// alternating returns bytes in which every other block of the store is zero.
func alternating(length int) []byte {
	p := pattern(length, 1)
	for at := 0; at < length; at += 2 * blockdev.BlockLength {
		clear(p[at:][:blockdev.BlockLength])
	}
	return p
}

// BenchmarkTarget_Reconfigure adds a LUN to a target with 16, and removes it, while 1,000
// nexuses are attached.
func BenchmarkTarget_Reconfigure(b *testing.B) {
	const nexuses, luns = 1000, 16
	f := newFixture(b)
	units := map[uint16]*LogicalUnit{0: f.lu}
	for lun := uint16(1); lun <= luns; lun++ {
		lu, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096), ID: [16]byte{byte(lun)}})
		if err != nil {
			b.Fatal(err)
		}
		units[lun] = lu
	}
	with, without := units, maps.Clone(units)
	delete(without, luns)
	for i := range nexuses {
		f.target.Attach(NexusID{InitiatorName: fmt.Sprintf("iqn.%d", i)})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := Configuration{Units: with}
		if i%2 == 1 {
			c.Units = without
		}
		if _, err := f.target.Reconfigure(c); err != nil {
			b.Fatal(err)
		}
	}
}
