package meta

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	if childDir() != "" {
		writeUntilKilled()
		return
	}
	goleak.VerifyTestMain(m,
		// Started when the glog package, a dependency of Badger, is loaded.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// everyKV runs one test on each implementation, empty. reopen closes and opens.
func everyKV(t *testing.T, test func(t *testing.T, kv KV, reopen func() KV)) {
	t.Run("badger", func(t *testing.T) {
		dir := t.TempDir()
		kv := openBadger(t, dir)
		t.Cleanup(func() { kv.Close() })
		test(t, kv, func() KV {
			must(t, kv.Close())
			kv = openBadger(t, dir)
			return kv
		})
	})
	t.Run("mem", func(t *testing.T) {
		m := NewMem()
		test(t, m, func() KV {
			must(t, m.Close())
			m = m.CrashClone(newRand(1))
			return m
		})
	})
}

func openBadger(t testing.TB, dir string) KV {
	t.Helper()
	kv, err := OpenBadger(dir, nil, 64<<20)
	must(t, err)
	return kv
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func op(key, value string) Op { return Op{[]byte(key), []byte(value)} }
func del(key string) Op       { return Op{Key: []byte(key)} }

// dump shows what a prefix holds, as "k=v k=v".
func dump(t testing.TB, kv KV, prefix string) string {
	t.Helper()
	var all []string
	must(t, kv.Scan([]byte(prefix), func(key, value []byte) error {
		all = append(all, string(key)+"="+string(value))
		return nil
	}))
	return strings.Join(all, " ")
}

func wantDump(t *testing.T, kv KV, prefix, want string) {
	t.Helper()
	if got := dump(t, kv, prefix); got != want {
		t.Errorf("scan of %q: %q, want %q", prefix, got, want)
	}
}

func TestUpdateGetScan(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, reopen func() KV) {
		wantDump(t, kv, "", "")
		must(t, kv.Update([]Op{op("b", "2"), op("a", "1"), op("ab", "12"), op("empty", ""), op("c\xff", "3")}))
		must(t, kv.Update([]Op{op("c", "old"), op("c", "new"), op("b", "x"), del("b"), del("none")}))
		must(t, kv.Update(nil))
		for range 2 {
			wantDump(t, kv, "", "a=1 ab=12 c=new c\xff=3 empty=")
			wantDump(t, kv, "a", "a=1 ab=12")
			wantDump(t, kv, "c\xff", "c\xff=3")
			wantDump(t, kv, "zz", "")
			if v, err := kv.Get([]byte("empty")); err != nil || v == nil || len(v) > 0 {
				t.Errorf("empty value: %v, %v", v, err)
			}
			for _, missing := range []string{"b", "none", ""} {
				_, err := kv.Get([]byte(missing))
				wantErr(t, "get of "+missing, err, ErrNotFound)
			}
			kv = reopen()
		}
	})
}

func TestSlicesBelongToTheCaller(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		key, value := []byte("key"), []byte("value")
		must(t, kv.Update([]Op{{key, value}}))
		copy(key, "xxx")
		copy(value, "xxxxx")
		got, err := kv.Get([]byte("key"))
		must(t, err)
		copy(got, "yyyyy")
		wantDump(t, kv, "", "key=value")
	})
}

func TestLimits(t *testing.T) {
	large := func(n int) []byte { return bytes.Repeat([]byte{'v'}, n) }
	many := func(n int) (ops []Op) {
		for i := range n {
			ops = append(ops, op(fmt.Sprintf("many%06d", i), "v"))
		}
		return ops
	}
	longest := func(extra int) (ops []Op) {
		left := MaxBytes + extra
		for i := byte(0); left > 1; i++ {
			n := min(left-1, MaxValue)
			ops = append(ops, Op{[]byte{'0' + i}, large(n)})
			left -= n + 1
		}
		return ops
	}
	for _, test := range []struct {
		name string
		ops  []Op
		want error
	}{
		{"most ops", many(MaxOps), nil},
		{"one op more", many(MaxOps + 1), ErrTooLarge},
		{"most bytes", longest(0), nil},
		{"one byte more", longest(1), ErrTooLarge},
		{"longest value", []Op{{[]byte("k"), large(MaxValue)}}, nil},
		{"longer value", []Op{{[]byte("k"), large(MaxValue + 1)}}, ErrTooLarge},
		{"longest key", []Op{{large(MaxKey), []byte("v")}}, nil},
		{"longer key", []Op{{large(MaxKey + 1), []byte("v")}}, ErrTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
				wantErr(t, "update", kv.Update(test.ops), test.want)
				n := 0
				must(t, kv.Scan(nil, func(_, _ []byte) error { n++; return nil }))
				if want := len(test.ops); test.want == nil && n != want || test.want != nil && n != 0 {
					t.Errorf("%d keys of %d found", n, want)
				}
			})
		})
	}
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		if kv.Update([]Op{op("a", "1"), op("", "x")}) == nil {
			t.Error("an empty key was accepted")
		}
		wantDump(t, kv, "", "")
	})
}

func TestScanSeesOnePointInTime(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		must(t, kv.Update([]Op{op("a", "1"), op("b", "1"), op("c", "1")}))
		var seen []string
		must(t, kv.Scan(nil, func(key, value []byte) error {
			seen = append(seen, string(key)+string(value))
			return kv.Update([]Op{op("b", "2"), del("c"), op("d", "2")})
		}))
		if want := []string{"a1", "b1", "c1"}; !slices.Equal(seen, want) {
			t.Errorf("scan saw %v, want %v", seen, want)
		}
		wantDump(t, kv, "", "a=1 b=2 d=2")
		stop := errors.New("stop")
		wantErr(t, "scan", kv.Scan(nil, func(_, _ []byte) error { return stop }), stop)
	})
}

func TestUpdatesAreAtomicSideBySide(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				for i := range 15 {
					v := fmt.Sprintf("%d.%d", w, i)
					if err := kv.Update([]Op{op("a", v), op("b", v)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 100 {
			got := dump(t, kv, "")
			a, b, _ := strings.Cut(got, " ")
			if strings.TrimPrefix(a, "a=") != strings.TrimPrefix(b, "b=") {
				t.Errorf("half of an update: %q", got)
			}
		}
		writers.Wait()
		must(t, kv.Sync())
	})
}

func TestClosed(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		must(t, kv.Close())
		_, err := kv.Get([]byte("a"))
		wantErr(t, "get", err, ErrClosed)
		wantErr(t, "update", kv.Update([]Op{op("a", "1")}), ErrClosed)
		wantErr(t, "scan", kv.Scan(nil, func(_, _ []byte) error { return nil }), ErrClosed)
		wantErr(t, "sync", kv.Sync(), ErrClosed)
		wantErr(t, "close", kv.Close(), ErrClosed)
	})
}

func TestCloseWaitsForAScan(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		must(t, kv.Update([]Op{op("a", "1"), op("b", "1")}))
		inside, closed := make(chan struct{}), make(chan error, 1)
		go func() { <-inside; closed <- kv.Close() }()
		n := 0
		must(t, kv.Scan(nil, func(_, _ []byte) error {
			if n++; n == 1 {
				close(inside)
			}
			return nil
		}))
		must(t, <-closed)
		if n != 2 {
			t.Errorf("%d keys seen", n)
		}
	})
}

// TestAgainstModel drives a KV and a map through the same random history.
func TestAgainstModel(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, reopen func() KV) {
		key := rapid.StringMatching(`[ab\xff]{1,3}`)
		rapid.Check(t, func(rt *rapid.T) {
			var clear []Op
			must(t, kv.Scan(nil, func(key, _ []byte) error {
				clear = append(clear, del(string(key)))
				return nil
			}))
			must(t, kv.Update(clear))
			model := map[string]string{}
			for range rapid.IntRange(1, 2).Draw(rt, "updates") {
				var ops []Op
				for range rapid.IntRange(0, 5).Draw(rt, "ops") {
					k := key.Draw(rt, "key")
					if rapid.IntRange(0, 3).Draw(rt, "deletes") == 0 {
						ops = append(ops, del(k))
						delete(model, k)
					} else {
						v := rapid.StringN(0, 3, -1).Draw(rt, "value")
						ops = append(ops, op(k, v))
						model[k] = v
					}
				}
				must(t, kv.Update(ops))
			}
			prefix := key.Draw(rt, "prefix")[:1]
			var want []string
			for _, k := range slices.Sorted(maps.Keys(model)) {
				if strings.HasPrefix(k, prefix) {
					want = append(want, k+"="+model[k])
				}
			}
			if got := dump(t, kv, prefix); got != strings.Join(want, " ") {
				rt.Fatalf("scan of %q: %q, want %q", prefix, got, want)
			}
		})
	})
}

func TestWriter(t *testing.T) {
	everyKV(t, func(t *testing.T, kv KV, _ func() KV) {
		w := NewWriter(kv)
		want := map[string]string{}
		key := []byte("key00000")
		value := bytes.Repeat([]byte{'v'}, 300)
		for i := range 2*MaxOps + 10 { // several pieces, by ops and by bytes
			copy(key[3:], fmt.Sprintf("%05d", i%20000))
			copy(value, fmt.Sprintf("%05d", i))
			if i%7 == 3 {
				must(t, w.Delete(key))
				delete(want, string(key))
				continue
			}
			must(t, w.Put(key, value[:i%300]))
			want[string(key)] = string(value[:i%300])
		}
		must(t, w.Put([]byte("nil"), nil))
		want["nil"] = ""
		must(t, w.Close())
		n := 0
		must(t, kv.Scan(nil, func(key, value []byte) error {
			if v, ok := want[string(key)]; !ok || v != string(value) {
				return fmt.Errorf("key %q: %d bytes, want %d", key, len(value), len(v))
			}
			n++
			return nil
		}))
		if n != len(want) {
			t.Errorf("%d keys, want %d", n, len(want))
		}
	})
}

func TestWriterKeepsItsError(t *testing.T) {
	m := NewMem()
	w := NewWriter(m)
	must(t, w.Put([]byte("a"), []byte("1")))
	wantErr(t, "put", w.Put([]byte("b"), make([]byte, MaxValue+1)), ErrTooLarge)
	wantErr(t, "delete", w.Delete([]byte("c")), ErrTooLarge)
	wantErr(t, "close", w.Close(), ErrTooLarge)
	w = NewWriter(m)
	must(t, w.Put([]byte("a"), []byte("1")))
	must(t, m.Close())
	wantErr(t, "close", w.Close(), ErrClosed)
}

func BenchmarkGet4KiB(b *testing.B) {
	kv := openBadger(b, b.TempDir())
	defer kv.Close()
	w := NewWriter(kv)
	keys := fill(b, w, 50_000)
	must(b, w.Close())
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := kv.Get(keys[i*7919%len(keys)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan4KiB(b *testing.B) {
	kv := openBadger(b, b.TempDir())
	defer kv.Close()
	w := NewWriter(kv)
	n := len(fill(b, w, 50_000))
	must(b, w.Close())
	b.SetBytes(int64(n) << 12)
	b.ReportAllocs()
	for b.Loop() {
		must(b, kv.Scan(nil, func(_, _ []byte) error { return nil }))
	}
}

func BenchmarkWriter4KiB(b *testing.B) {
	kv := openBadger(b, b.TempDir())
	defer kv.Close()
	value := bytes.Repeat([]byte{7}, 4096)
	w := NewWriter(kv)
	key := []byte("00000000")
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		copy(key, fmt.Sprintf("%08x", i))
		must(b, w.Put(key, value))
	}
	must(b, w.Close())
}

func BenchmarkUpdateOne(b *testing.B) {
	kv := openBadger(b, b.TempDir())
	defer kv.Close()
	b.ReportAllocs()
	for b.Loop() {
		must(b, kv.Update([]Op{op("key", "value")}))
	}
}

func fill(b *testing.B, w *Writer, n int) (keys [][]byte) {
	value := bytes.Repeat([]byte{7}, 4096)
	for i := range n {
		keys = append(keys, fmt.Appendf(nil, "%08x", i))
		must(b, w.Put(keys[i], value))
	}
	return keys
}
