package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// clone makes a clone or a snapshot of one of the volumes of a history; while
// there is one it is written to, or deleted.
func (h *history) clone() {
	const name = "c"
	if _, ok := h.now().volumes[name]; ok {
		if v := h.volume(name); !v.ReadOnly() && h.rng.IntN(3) > 0 {
			h.writeTo(name)
			return
		}
		next := h.now().clone()
		delete(next.volumes, name)
		h.do("delete "+name, next, func(ctx context.Context) error { return h.store.DeleteVolume(ctx, name) })
		return
	}
	src := h.name()
	next := h.now().clone()
	next.volumes[name] = next.volumes[src]
	make, what := h.store.CloneVolume, "clone"
	if h.rng.IntN(2) == 0 {
		make, what = h.store.SnapshotVolume, "read-only clone"
	}
	h.do(fmt.Sprintf("%s of %s", what, src), next, func(ctx context.Context) error {
		_, err := make(ctx, src, name)
		return err
	})
	h.durable()
}

func TestClonesGoTheirOwnWays(t *testing.T) {
	const size = 5 << 20
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	before := time.Now().Add(-time.Second)
	src := createVolume(t, s, "src", size)
	old, fresh := randomBytes(1, size), randomBytes(2, 1<<20)
	if err := src.WriteAt(ctx, old, 0); err != nil {
		t.Fatal(err)
	}
	clone, err := s.CloneVolume(ctx, "src", "clone")
	if err != nil {
		t.Fatal(err)
	}
	snap, err := s.SnapshotVolume(ctx, "src", "snap")
	if err != nil {
		t.Fatal(err)
	}
	if err := src.WriteAt(ctx, fresh, 0); err != nil {
		t.Fatal(err)
	}
	if err := clone.WriteAt(ctx, fresh, 2<<20); err != nil {
		t.Fatal(err)
	}
	if clone.ID() == src.ID() || snap.ID() == src.ID() || clone.ID() == snap.ID() {
		t.Error("clones have the identity of what they were made from")
	}
	want := map[string][]byte{
		"src":   append(bytes.Clone(fresh), old[1<<20:]...),
		"clone": append(append(bytes.Clone(old[:2<<20]), fresh...), old[3<<20:]...),
		"snap":  old,
	}
	for _, reopened := range []bool{false, true} {
		if reopened {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = d.open(t, 16<<10)
		}
		for name, data := range want {
			v, err := s.Volume(name)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size)
			if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, data) {
				t.Errorf("reopened %t: %s holds something else (%v)", reopened, name, err)
			}
			origin, ok := v.Origin()
			if ok != (name != "src") || ok && origin != "src" {
				t.Errorf("%s was cloned from %q, %t", name, origin, ok)
			}
			if v.ReadOnly() != (name == "snap") {
				t.Errorf("%s is read-only: %t", name, v.ReadOnly())
			}
			if made := v.Created(); made.Before(before) || made.After(time.Now()) {
				t.Errorf("%s was made at %v", name, made)
			}
		}
	}
	defer s.Close()
	if err := s.DeleteVolume(ctx, "src"); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Volume("snap"); err != nil {
		t.Error(err)
	} else if origin, ok := v.Origin(); ok {
		t.Errorf("its origin is %s, which was deleted", origin)
	}
	reaped(t, s)
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
}

func TestReadOnlyVolumesRefuseWrites(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	src := createVolume(t, s, "src", 1<<20)
	v, err := s.SnapshotVolume(ctx, "src", "snap")
	if err != nil {
		t.Fatal(err)
	}
	n, err := src.Snapshot(ctx, []Range{{Length: 1 << 20}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Release()
	p := make([]byte, 4096)
	for name, op := range map[string]func() error{
		"write":             func() error { return v.WriteAt(ctx, p, 0) },
		"zero":              func() error { return v.Zero(ctx, 0, 4096) },
		"unmap":             func() error { return v.Unmap(ctx, 0, 4096) },
		"compare and write": func() error { _, err := v.CompareAndWrite(ctx, p, p, 0); return err },
		"map":               func() error { _, err := v.Map(ctx, 0, n, 0, 1<<20); return err },
		"grow":              func() error { return v.Grow(ctx, 2<<20) },
	} {
		if err := op(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", name, err)
		}
	}
	again, err := s.CloneVolume(ctx, "snap", "again")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.WriteAt(ctx, p, 0); err != nil {
		t.Errorf("write to the clone of a snapshot: %v", err)
	}
}

func TestCloneRefusals(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	createVolume(t, s, "src", 1<<20)
	for name, tt := range map[string]struct {
		src, name string
		want      error
	}{
		"no source":  {"none", "clone", ErrNotFound},
		"name taken": {"src", "src", ErrExists},
		"no name":    {"src", "", ErrInvalid},
		"long name":  {"src", strings.Repeat("x", 256), ErrInvalid},
	} {
		if _, err := s.CloneVolume(ctx, tt.src, tt.name); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if n := len(s.Volumes()); n != 1 {
		t.Errorf("%d volumes, want 1", n)
	}
}

// TestVolumeRecordOfFirstStores: what the first version stored of a volume
// still reads, as a volume that can be written to.
func TestVolumeRecordOfFirstStores(t *testing.T) {
	row := volumeRow{number: 7, name: "old", size: 1 << 20}
	d := dec{b: row.encode()[:1+16+1+3+3+1+1]}
	read := d.volumeRow()
	got := (*Store)(nil).volumeOf(&read)
	if d.err != nil || got.number != 7 || got.Name() != "old" || got.size != 1<<20 || got.readOnly || got.origin != 0 || got.created != 0 {
		t.Errorf("got %+v, %v", got, d.err)
	}
}

func BenchmarkCloneVolume(b *testing.B) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(b, 16<<10)
	defer s.Close()
	src, err := s.CreateVolume(ctx, "src", 1<<40)
	if err != nil {
		b.Fatal(err)
	}
	for off := int64(0); off < 1<<40; off += 1 << 34 {
		if err := src.WriteAt(ctx, randomBytes(uint64(off>>34), 64<<10), off); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for i := range b.N {
		if _, err := s.CloneVolume(ctx, "src", fmt.Sprint("clone", i)); err != nil {
			b.Fatal(err)
		}
	}
}
