package tokens_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"odx/backstore"
	"odx/backstore/vfs"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/tokens"
)

// disk is what a store is kept on: in memory, so that its power can be cut.
type disk struct {
	fs *vfs.Mem
}

func newDisk() *disk { return &disk{fs: vfs.NewMem()} }

func (d *disk) options() backstore.Options {
	return backstore.Options{
		Dir: "/store", Log: logs.Discard(), FS: d.fs, CacheBytes: 4 << 20,
	}
}

// extentWorld is a world over a real store.
type extentWorld struct {
	world
	options backstore.Options
	store   *backstore.Store
}

func (w *extentWorld) open(t must.TB) {
	t.Helper()
	var err error
	if w.store, err = backstore.Open(ctx, w.options); err != nil {
		t.Fatal(err)
	}
	if w.manager, err = tokens.Open(ctx, tokens.Options{Store: offload.ExtentStore{Store: w.store}, Log: logs.Discard()}); err != nil {
		t.Fatal(err)
	}
	for i, v := range w.volumes {
		if _, own := v.volume.(*backstore.Volume); !own {
			continue
		}
		if w.volumes[i].volume, err = w.store.Volume(v.name); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *extentWorld) close(t must.TB) {
	t.Helper()
	if err := w.manager.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
}

func (w *extentWorld) create(t must.TB, name string, size, blockLength int64) *backstore.Volume {
	t.Helper()
	v, err := w.store.CreateVolume(ctx, name, size)
	if err != nil {
		t.Fatal(err)
	}
	w.addVolume(name, v, blockLength)
	return v
}

// TestManager_Random on the extent store, with power cuts.
func TestManager_Random_extentStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDisk()
		w := &extentWorld{options: d.options()}
		w.open(t)
		defer func() { w.close(t) }()
		w.create(t, "a", worldSize+512, 512)
		w.create(t, "b", worldSize, 4096)
		other := offloadtest.NewStore([16]byte{2})
		w.addVolume("of another store", offloadtest.Foreign{Volume: other.NewVolume("c", worldSize), BlockLength: 512}, 512)
		t.Repeat(map[string]func(*rapid.T){
			"write":        w.write,
			"offloadRead":  w.offloadRead,
			"offloadWrite": w.offloadWrite,
			"revoke":       w.revoke,
			"read":         w.read,
			"hashRead":     w.hashRead,
			"hashCheck":    w.hashCheck,
			"checkpoint": func(t *rapid.T) {
				if err := w.store.Checkpoint(ctx); err != nil {
					t.Fatal(err)
				}
			},
			"restart": func(t *rapid.T) {
				seldom(t)
				w.close(t)
				w.open(t)
			},
			"powerCut": func(t *rapid.T) {
				seldom(t)
				if err := w.store.Flush(ctx); err != nil {
					t.Fatal(err)
				}
				rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "what survives"), 0))
				after := &disk{fs: d.fs.CrashClone(rng)}
				w.close(t)
				d, w.options = after, after.options()
				w.open(t)
			},
			"": w.check,
		})
		if findings, err := w.store.Check(ctx); err != nil || len(findings) > 0 {
			t.Fatalf("check of the store: %v, %v", findings, err)
		}
	})
}

// seldom skips most runs of an action that takes time.
func seldom(t *rapid.T) {
	if rapid.IntRange(0, 7).Draw(t, "seldom") != 0 {
		t.Skip("seldom enough")
	}
}

// A token outlives a power cut right after it was made, and the deletion of its source.
func TestManager_PowerCut(t *testing.T) {
	d := newDisk()
	w := &extentWorld{options: d.options()}
	w.open(t)
	data := pattern(t, w.create(t, "src", volumeSize, 512), 3)
	if err := w.store.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	tok := mustRead(t, w.manager, w.volumes[0].volume, ranges(512, 65536), tokens.ReadOptions{})
	rng := rand.New(rand.NewPCG(1, 1))
	after := &disk{fs: d.fs.CrashClone(rng)}
	w.close(t)
	w.options = after.options()
	w.open(t)
	if err := w.store.DeleteVolume(ctx, "src"); err != nil {
		t.Fatal(err)
	}
	w.volumes = nil
	w.close(t)
	w.open(t)
	defer func() { w.close(t) }()
	dst := w.create(t, "dst", volumeSize, 512)
	mustWrite(t, w.manager, tok, 0, dst, ranges(4096, 65536), 65536)
	if !bytes.Equal(contents(t, dst)[4096:4096+65536], data[512:512+65536]) {
		t.Error("wrong data")
	}
	if err := w.manager.Delete(ctx, tok.ID(), tokens.Deleted); err != nil {
		t.Fatal(err)
	}
}

// openForBenchmark returns a manager over a real store with two volumes, the
// first of which holds used bytes that nothing duplicates.
func openForBenchmark(b *testing.B, size, used int64) (*tokens.Manager, *backstore.Volume, *backstore.Volume) {
	w := &extentWorld{options: backstore.Options{Dir: b.TempDir(), Log: logs.Discard()}}
	w.open(b)
	b.Cleanup(func() { w.close(b) })
	var volumes [2]*backstore.Volume
	for i, name := range []string{"src", "dst"} {
		var err error
		if volumes[i], err = w.store.CreateVolume(ctx, name, size); err != nil {
			b.Fatal(err)
		}
	}
	src, dst := volumes[0], volumes[1]
	rnd := rand.NewChaCha8([32]byte{1})
	p := make([]byte, 4<<20)
	for off := int64(0); off < used; off += int64(len(p)) {
		rnd.Read(p)
		if err := src.WriteAt(ctx, p, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.store.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	return w.manager, src, dst
}

// BenchmarkOffload copies by token: OffloadRead, OffloadWrite until all is
// done, and the token's deletion, which is not timed.
func BenchmarkOffload(b *testing.B) {
	const mib, gib, tib = 1 << 20, 1 << 30, 1 << 40
	for _, bm := range []struct {
		name              string
		size, used        int64 // bytes of the volume, and of data in it
		length            int64
		srcShift, toShift int64
	}{
		{"256MiB/congruent", 2 * gib, gib, 256 * mib, 0, 0},
		{"256MiB/shifted4KiB", 2 * gib, gib, 256 * mib, 0, 4096},
		{"256MiB/shifted512B", 2 * gib, gib, 256 * mib, 0, 512},
		{"1GiB/congruent", 2 * gib, gib, gib, 0, 0},
		{"1GiB/shifted4KiB", 2 * gib, gib, gib, 0, 4096},
		{"1TiB/congruent", tib, gib, tib, 0, 0},
	} {
		b.Run(bm.name, func(b *testing.B) {
			m, src, dst := openForBenchmark(b, bm.size, bm.used)
			from, to := ranges(bm.srcShift, bm.length), bm.toShift
			latencies := make([]time.Duration, 0, b.N)
			b.ReportAllocs()
			b.SetBytes(bm.length)
			for b.Loop() {
				begin := time.Now()
				res, err := m.OffloadRead(ctx, source(src), from, tokens.ReadOptions{})
				if err != nil {
					b.Fatal(err)
				}
				for done := int64(0); done < bm.length; {
					n, err := m.OffloadWrite(ctx, res.Token, done, destination(dst), ranges(to+done, bm.length-done), tokens.WriteOptions{})
					if err != nil || n == 0 {
						b.Fatal(n, err)
					}
					done += n
				}
				latencies = append(latencies, time.Since(begin))
				b.StopTimer()
				if err := m.Delete(ctx, res.Token.ID(), tokens.Deleted); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(median(latencies).Microseconds()), "p50-µs")
		})
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
