package backstore

import (
	"fmt"
	"testing"

	"odx/backstore/rows"
	"odx/backstore/vfs/rados"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// requireExclusive compares what deleting volume v of a store gives back with a number of bytes.
func requireExclusive(t *testing.T, s *Store, want int64) {
	t.Helper()
	volumes, _, err := s.ExclusiveBytes(t.Context())
	must.Succeed(t, err)
	if got := volumes["v"]; got != want {
		t.Errorf("%d bytes are exclusive, want %d", got, want)
	}
}

// requireHeld compares what deleting a snapshot gives back with a number of bytes.
func requireHeld(t *testing.T, n *Snapshot, want int64) {
	t.Helper()
	held, err := n.store.HeldBytes(t.Context(), []uint64{n.ID()})
	must.Succeed(t, err)
	if held.Total != want || held.Each[0] != want {
		t.Errorf("the snapshot holds %d bytes, %v, want %d", held.Total, held.Each, want)
	}
}

// TestStore_Figures_Adopted: what a volume maps in segments of another store is neither its own
// nor given back with it; what it maps in segments that another store holds is its own, and not
// given back. Both are once the data was brought home.
func TestStore_Figures_Adopted(t *testing.T) {
	ctx := t.Context()
	const size, own = 1 << 20, 256 << 10
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	maker, taker := p.stores[0], p.stores[1]
	src := createVolume(t, maker, "v", size)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, size), 0))
	requireExclusive(t, maker, size)
	n, err := src.Snapshot(ctx, []Range{{Length: size}}, nil)
	must.Succeed(t, err)
	v := createVolume(t, taker, "v", size+own)
	must.Succeed(t, v.WriteAt(ctx, randomBytes(2, own), size))
	mustAdopt(t, p, 0, n, v, 0, 0, size)
	requireExclusive(t, taker, own)
	stats, err := taker.Stats(ctx)
	must.Succeed(t, err)
	if stats.AdoptedBytes != size || stats.LiveBytes != size+own || stats.DedupRatio != 1 {
		t.Errorf("taker: %d of %d live bytes are adopted, ratio %v", stats.AdoptedBytes, stats.LiveBytes, stats.DedupRatio)
	}

	n.Release()
	must.Succeed(t, maker.DeleteSnapshot(ctx, n.ID()))
	reaped(t, maker)

	requireExclusive(t, maker, 0)
	must.Succeed(t, maker.DeleteVolume(ctx, "v"))
	reaped(t, maker)
	must.Succeed(t, maker.Clean(ctx))
	f, err := maker.Figures()
	must.Succeed(t, err)
	if f.LentDeadBytes != size || f.ReclaimableBytes != 0 || f.PhysicalBytes < size {
		t.Errorf("maker: %d of %d bytes are dead and lent, %d reclaimable", f.LentDeadBytes, f.PhysicalBytes, f.ReclaimableBytes)
	}

	kept := pin(t, v)
	must.Succeed(t, v.Unmap(ctx, 0, size+own)) // the snapshot alone has it now
	requireHeld(t, kept, own)
	must.Succeed(t, taker.BringHome(ctx))
	requireHeld(t, kept, size+own)
	p.settle(1)
	must.Succeed(t, maker.Checkpoint(ctx))
	if f, err = taker.Figures(); err != nil || f.AdoptedBytes != 0 || f.Cleaning.BroughtHomeBytes != size || f.Cleaning.MovedBytes != 0 || f.Cleaning.Segments != 0 {
		t.Errorf("taker: %d bytes are adopted, %+v, %v", f.AdoptedBytes, f.Cleaning, err)
	}
	if f, err = maker.Figures(); err != nil || f.LentBytes != 0 || f.LentDeadBytes != 0 || f.LiveBytes != 0 {
		t.Errorf("maker: %d bytes are lent, %d of them dead, %d live, %v", f.LentBytes, f.LentDeadBytes, f.LiveBytes, err)
	}
	p.close()
}

// TestDump_Aliases: a dump says of a segment of another store which one that is.
func TestDump_Aliases(t *testing.T) {
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	src := createVolume(t, p.stores[0], "v", 1<<20)
	must.Succeed(t, src.WriteAt(t.Context(), randomBytes(1, 1<<20), 0))
	mustAdopt(t, p, 0, pin(t, src), createVolume(t, p.stores[1], "v", 1<<20), 0, 0, 1<<20)
	ids, _ := p.stores[1].aliases.live()
	if len(ids) != 1 {
		t.Fatalf("aliases %v", ids)
	}
	of := p.stores[1].aliases.byID[ids[0]].row
	must.Succeed(t, p.stores[1].Close())
	shown := 0
	o := Options{Dir: "/store", FS: rados.New(p.twins[1].Client()), Log: logs.Discard(), FingerprintKey: &[32]byte{1, 2, 3}}
	must.Succeed(t, Dump(t.Context(), o, []string{"aliases"}, func(item DumpItem) error {
		shown++
		want, err := rows.Describe(rows.AliasKey(ids[0]), of.Encode(), 1)
		if item.Error != "" || err != nil || fmt.Sprint(item.Value) != fmt.Sprint(want) {
			t.Errorf("%+v, want %v, %v", item, want, err)
		}
		return nil
	}))
	if shown != 1 {
		t.Errorf("%d aliases were shown", shown)
	}
	must.Succeed(t, p.stores[0].Close())
}
