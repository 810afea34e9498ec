package backstore

import (
	"context"
	"fmt"
	"testing"

	"odx/backstore/codec"
	"odx/backstore/rows"
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

// TestVolumeRecordOfFirstStores: what the first version stored of a volume
// still reads, as a volume that can be written to.
func TestVolumeRecordOfFirstStores(t *testing.T) {
	row := rows.Volume{Number: 7, Name: "old", Size: 1 << 20}
	d := codec.Decoder{B: row.Encode()[:1+16+1+3+3+1+1]}
	read := rows.ReadVolume(&d)
	got := (*Store)(nil).volumeOf(&read)
	if d.Err != nil || got.number != 7 || got.Name() != "old" || got.size != 1<<20 || got.readOnly || got.origin != 0 || got.created != 0 {
		t.Errorf("got %+v, %v", got, d.Err)
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
