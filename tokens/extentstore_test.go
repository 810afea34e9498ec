package tokens_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"odx/backstore"
	"odx/tokens"
	"odx/tokens/tokentest"
)

// fataler is what testing.TB and rapid.T have in common here.
type fataler interface {
	Helper()
	Fatal(...any)
}

// extentWorld is a world over a real store in a folder.
type extentWorld struct {
	world
	dir   string
	store *backstore.Store
}

func (w *extentWorld) open(t fataler) {
	t.Helper()
	var err error
	if w.store, err = backstore.Open(ctx, backstore.Options{Dir: w.dir, Log: discard()}); err != nil {
		t.Fatal(err)
	}
	if w.manager, err = tokens.Open(ctx, tokens.Options{Store: tokens.ExtentStore(w.store), Log: discard()}); err != nil {
		t.Fatal(err)
	}
	for i, v := range w.volumes {
		if _, real := v.volume.(*backstore.Volume); !real {
			continue
		}
		if w.volumes[i].volume, err = w.store.Volume(v.name); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *extentWorld) close(t fataler) {
	t.Helper()
	if err := w.manager.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
}

func (w *extentWorld) create(t fataler, name string, size, blockLength int64) *backstore.Volume {
	t.Helper()
	v, err := w.store.CreateVolume(ctx, name, size)
	if err != nil {
		t.Fatal(err)
	}
	w.addVolume(name, v, blockLength)
	return v
}

// The property of the in-memory twin holds for the store itself.
func TestPointInTimePropertyOnTheExtentStore(t *testing.T) {
	w := &extentWorld{dir: t.TempDir()}
	w.open(t)
	defer func() { w.close(t) }()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w.volumes, w.tokens = nil, nil
		names := []string{fmt.Sprintf("a%d", run), fmt.Sprintf("b%d", run)}
		w.create(t, names[0], worldSize+512, 512)
		w.create(t, names[1], worldSize, 4096)
		other := tokentest.NewStore([16]byte{2})
		w.addVolume("of another store", tokentest.Dumb{Volume: other.NewVolume("c", worldSize), BlockLength: 512}, 512)
		t.Repeat(map[string]func(*rapid.T){
			"write":        w.write,
			"offloadRead":  w.offloadRead,
			"offloadWrite": w.offloadWrite,
			"revoke":       w.revoke,
			"restart": func(t *rapid.T) {
				if rapid.IntRange(0, 49).Draw(t, "seldom") != 0 {
					t.Skip("restarts take time")
				}
				w.close(t)
				w.open(t)
			},
			"": w.check,
		})
		for _, tok := range w.tokens {
			if tok.dead == nil {
				if err := w.manager.Delete(ctx, tok.token.ID(), tokens.Revoked); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, name := range names {
			if err := w.store.DeleteVolume(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
	})
	if left := w.store.Volumes(); len(left) != 0 {
		t.Errorf("%d volumes are left", len(left))
	}
}

// A token whose source is gone is still good, after a restart too.
func TestTokenOutlivesItsVolume(t *testing.T) {
	w := &extentWorld{dir: t.TempDir()}
	w.open(t)
	data := pattern(t, w.create(t, "src", volumeSize, 512), 3)
	tok := mustRead(t, w.manager, w.volumes[0].volume, ranges(512, 65536), tokens.ReadOptions{})
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
	w := &extentWorld{dir: b.TempDir()}
	w.open(b)
	b.Cleanup(func() { w.close(b) })
	src, dst := w.create(b, "src", size, 512), w.create(b, "dst", size, 512)
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
