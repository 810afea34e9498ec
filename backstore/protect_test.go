package backstore

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"odx/internal/kit/must"
)

// TestVolume_Protect: what a protection forbids, from the step on that gives it and over a
// restart, until the step that ends it.
func TestVolume_Protect(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	must.Succeed(t, err)
	other, err := s.CreateVolume(ctx, "other", 2<<20)
	must.Succeed(t, err)
	f, err := s.CreateFile(ctx, "f")
	must.Succeed(t, err)
	must.Succeed(t, v.Protect(ctx, "one", &Protection{By: "replica one"}))
	must.Succeed(t, v.WriteAt(ctx, content([]uint32{1}), 0))
	must.Succeed(t, v.Protect(ctx, "two", &Protection{By: "replica two", Frozen: true}, Record{Key: []byte("test/role"), Value: []byte("frozen")}))
	must.Succeed(t, f.Protect(ctx, "two", &Protection{By: "replica two", Frozen: true}))
	check := func(s *Store) {
		t.Helper()
		v, err := s.Volume("v")
		must.Succeed(t, err)
		n, err := v.Snapshot(ctx, []Range{{Offset: 0, Length: 4096}}, nil)
		must.Succeed(t, err)
		defer n.Release()
		f, err := s.File("f")
		must.Succeed(t, err)
		other, err := s.Volume("other")
		must.Succeed(t, err)
		_, mapped := v.Map(ctx, 0, n, 0, 4096)
		_, compared := v.CompareAndWrite(ctx, make([]byte, 512), make([]byte, 512), 512)
		for what, err := range map[string]error{
			"write": v.WriteAt(ctx, content([]uint32{2}), 0), "unmap": v.Unmap(ctx, 0, 4096), "grow": v.Grow(ctx, 3<<20), "map": mapped,
			"revert": v.Revert(ctx, other), "compare and write": compared, "truncate": f.Truncate(ctx, 1),
		} {
			if !errors.Is(err, ErrReadOnly) {
				t.Errorf("%s of a frozen volume: %v", what, err)
			}
		}
		_, err = s.CreateFile(ctx, "g")
		must.Succeed(t, err)
		for what, err := range map[string]error{"volume": s.DeleteVolume(ctx, "v"), "file": s.DeleteFile(ctx, "f"), "replaced file": s.RenameFile(ctx, "g", "f")} {
			var p *ProtectedError
			if !errors.As(err, &p) || p.By != "replica two" {
				t.Errorf("deletion of a protected %s: %v", what, err)
			}
		}
		must.Succeed(t, s.DeleteFile(ctx, "g"))
		must.Succeed(t, s.DeleteSnapshot(ctx, n.ID()))
	}
	check(s)
	must.Succeed(t, s.Close())
	s = d.open(t, 4<<10)
	check(s)
	if value, err := s.GetRecord([]byte("test/role")); string(value) != "frozen" {
		t.Errorf("record of the same step: %q, %v", value, err)
	}
	v, err = s.Volume("v")
	must.Succeed(t, err)
	must.Succeed(t, v.Protect(ctx, "two", nil))
	must.Succeed(t, v.WriteAt(ctx, content([]uint32{2}), 0))
	if p, ok := v.Protected(); !ok || p.By != "replica one" || p.Frozen {
		t.Errorf("protection that is left: %+v, %v", p, ok)
	}
	must.Succeed(t, v.Protect(ctx, "one", nil))
	must.Succeed(t, s.DeleteVolume(ctx, "v"))
	must.Succeed(t, s.Close())
	must.Succeed(t, d.open(t, 4<<10).Close())
	_ = other
}

// TestVolume_Protect_Concurrent: no write takes effect after a volume was frozen.
func TestVolume_Protect_Concurrent(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	must.Succeed(t, err)
	for range 20 {
		var writers sync.WaitGroup
		started := make(chan struct{}, 4)
		for w := range uint32(4) {
			writers.Go(func() {
				for i := uint32(0); ; i++ {
					err := v.WriteAt(ctx, content([]uint32{w, i}), 0)
					if i == 0 {
						started <- struct{}{}
					}
					if errors.Is(err, ErrReadOnly) {
						return
					}
					must.Succeed(t, err)
				}
			})
		}
		for range 4 {
			<-started
		}
		must.Succeed(t, v.Protect(ctx, "x", &Protection{By: "test", Frozen: true}))
		then := make([]byte, 4096)
		must.Succeed(t, v.ReadAt(ctx, then, 0))
		writers.Wait()
		now := make([]byte, 4096)
		must.Succeed(t, v.ReadAt(ctx, now, 0))
		if !bytes.Equal(then, now) {
			t.Fatal("a frozen volume has changed")
		}
		must.Succeed(t, v.Protect(ctx, "x", nil))
	}
	must.Succeed(t, s.Close())
}

// TestVolume_Replace: a frozen volume or file gets the content and size of another one in
// one step, also for those that read at the time.
func TestVolume_Replace(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	const small, large = 64 << 10, 128<<10 + 512
	made := func(size int64, b byte) *Volume {
		v, err := s.CreateFile(ctx, string(b))
		must.Succeed(t, err)
		must.Succeed(t, v.Truncate(ctx, size))
		must.Succeed(t, v.WriteAt(ctx, bytes.Repeat([]byte{b}, int(size)), 0))
		return v
	}
	a, b := made(small, 'a'), made(large, 'b')
	f, err := s.CreateFile(ctx, "f")
	must.Succeed(t, err)
	must.Succeed(t, f.Protect(ctx, "x", &Protection{By: "test", Frozen: true}))
	must.Succeed(t, f.Replace(ctx, a))
	done := make(chan struct{})
	var readers sync.WaitGroup
	var shrinking sync.RWMutex // a read that began before the file became shorter sees zeros
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				p := make([]byte, small)
				must.Succeed(t, f.ReadAt(ctx, p, 0))
				if p[0] != p[small-1] || bytes.Count(p, p[:1]) != small {
					t.Error("a read sees a part of a replacement")
					return
				}
				last := make([]byte, 512)
				shrinking.RLock()
				err := f.ReadAt(ctx, last, large-512)
				shrinking.RUnlock()
				switch {
				case errors.Is(err, ErrRange): // it has the content of a
				case err != nil || bytes.Count(last, []byte{'b'}) != 512:
					t.Errorf("the last sector begins with %x: %v", last[0], err)
					return
				}
			}
		})
	}
	for range 100 {
		must.Succeed(t, f.Replace(ctx, b))
		shrinking.Lock()
		must.Succeed(t, f.Replace(ctx, a))
		shrinking.Unlock()
	}
	close(done)
	readers.Wait()
	requireSound(t, s)
	must.Succeed(t, s.Close())
}

// TestOpen_LongIdentity: a record with an identity of the wrong length is damage.
func TestOpen_LongIdentity(t *testing.T) {
	ctx := context.Background()
	long := strings.Repeat("00", 17)
	for name, r := range map[string]Record{
		"protection": {Key: []byte(protectPrefix + long + "/one"), Value: []byte(`{"version":1}`)},
		"revert":     {Key: []byte(revertPrefix + "1"), Value: []byte(`{"version":1,"volume":"` + long + `"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			s := d.open(t, 4<<10)
			must.Succeed(t, s.PutRecords(ctx, r), s.Close())
			if _, err := Open(ctx, d.options(Options{DedupUnit: 4 << 10})); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "identity") {
				t.Errorf("%v, want ErrCorrupt that says so", err)
			}
		})
	}
}
