package backstore

import (
	"context"
	"testing"

	"odx/internal/kit/must"
)

// TestStore_Stats: the sums add up, and tell what clones share from what is
// deduplicated, and what belongs to volumes, files and snapshots.
func TestStore_Stats(t *testing.T) {
	const size = 8 << 20 // four leaves
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	check := func(want Stats) {
		t.Helper()
		reaped(t, s)
		st, err := s.Stats(ctx)
		must.Succeed(t, err)
		if got := (Stats{Snapshots: st.Snapshots, LogicalBytes: st.LogicalBytes,
			FileBytes: st.FileBytes, SnapshotBytes: st.SnapshotBytes, ClonedBytes: st.ClonedBytes,
			DeduplicatedBytes: st.DeduplicatedBytes, LiveBytes: st.LiveBytes}); !statsEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if st.LogicalBytes+st.SnapshotBytes != st.ClonedBytes+st.DeduplicatedBytes+st.LiveBytes {
			t.Errorf("%d logical and %d of snapshots are not %d cloned, %d deduplicated and %d live",
				st.LogicalBytes, st.SnapshotBytes, st.ClonedBytes, st.DeduplicatedBytes, st.LiveBytes)
		}
		if st.DiskBytes < st.PhysicalBytes+st.ReserveBytes+st.MetadataBytes || st.PhysicalBytes < st.LiveBytes {
			t.Errorf("on the disk: %+v", st)
		}
	}
	data := randomBytes(1, size)
	v := createVolume(t, s, "v", 2*size)
	must.Succeed(t, v.WriteAt(ctx, data, 0))
	check(Stats{LogicalBytes: size, LiveBytes: size})
	must.Succeed(t, v.WriteAt(ctx, data, size)) // the same data again
	check(Stats{LogicalBytes: 2 * size, DeduplicatedBytes: size, LiveBytes: size})
	_, err := s.CloneVolume(ctx, "v", "w")
	must.Succeed(t, err)
	check(Stats{LogicalBytes: 4 * size, ClonedBytes: 2 * size, DeduplicatedBytes: size, LiveBytes: size})
	f, err := s.CreateFile(ctx, "f")
	must.Succeed(t, err)
	must.Succeed(t, f.Truncate(ctx, size))
	must.Succeed(t, f.WriteAt(ctx, randomBytes(2, size/2), 0))
	n, err := f.Snapshot(ctx, []Range{{Length: size / 2}}, nil)
	must.Succeed(t, err)
	n.Release()
	check(Stats{Snapshots: 1, LogicalBytes: 4*size + size/2, FileBytes: size / 2,
		ClonedBytes: 2 * size, DeduplicatedBytes: size, LiveBytes: size + size/2})
	must.Succeed(t, f.Zero(ctx, 0, size))
	check(Stats{Snapshots: 1, LogicalBytes: 4 * size, SnapshotBytes: size / 2,
		ClonedBytes: 2 * size, DeduplicatedBytes: size, LiveBytes: size + size/2})
}

func statsEqual(a, b Stats) bool {
	a.Volumes, a.Files, b.Volumes, b.Files = nil, nil, nil, nil
	return a.Snapshots == b.Snapshots && a.LogicalBytes == b.LogicalBytes &&
		a.FileBytes == b.FileBytes && a.SnapshotBytes == b.SnapshotBytes && a.ClonedBytes == b.ClonedBytes &&
		a.DeduplicatedBytes == b.DeduplicatedBytes && a.LiveBytes == b.LiveBytes
}
