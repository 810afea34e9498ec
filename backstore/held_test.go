package backstore

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// settle passes on the loss of what was dropped.
func settle(t interface{ Fatal(...any) }, s *Store) {
	for {
		more, err := s.reapOnce(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

// What the snapshots are said to hold is what deleting them gives back.
func TestHeldBytesAreWhatDeletionGivesBack(t *testing.T) {
	const blocks = 2 * 512 // two leaves
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		s, err := Open(ctx, newDisk().options(Options{DedupUnit: 8 << 10}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var volumes []*Volume
		for _, name := range []string{"a", "b"} {
			v, err := s.CreateVolume(ctx, name, blocks*BlockLength)
			if err != nil {
				t.Fatal(err)
			}
			volumes = append(volumes, v)
		}
		draw := func() (*Volume, Range) {
			v := volumes[rapid.IntRange(0, 1).Draw(t, "volume")]
			first := rapid.Int64Range(0, blocks-1).Draw(t, "block")
			count := rapid.SampledFrom([]int64{1, 3, 100, 512}).Draw(t, "blocks")
			return v, Range{Offset: first * BlockLength, Length: min(count, blocks-first) * BlockLength}
		}
		var snapshots []uint64
		seed := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				v, r := draw()
				p := make([]byte, r.Length)
				if rapid.Bool().Draw(t, "new data") {
					seed++
				}
				unique(p, seed+1)
				if err := v.WriteAt(ctx, p, r.Offset); err != nil {
					t.Fatal(err)
				}
			},
			"snapshot": func(t *rapid.T) {
				v, r := draw()
				n, err := v.Snapshot(ctx, []Range{r}, nil)
				if err != nil {
					t.Fatal(err)
				}
				snapshots = append(snapshots, n.ID())
				n.Release()
			},
			"map": func(t *rapid.T) {
				if len(snapshots) == 0 {
					t.Skip("no snapshots")
				}
				n, err := s.Snapshot(rapid.SampledFrom(snapshots).Draw(t, "snapshot"))
				if err != nil {
					t.Fatal(err)
				}
				defer n.Release()
				v, r := draw()
				if _, err := v.Map(ctx, r.Offset, n, 0, min(r.Length, n.Length())); err != nil {
					t.Fatal(err)
				}
			},
		})
		settle(t, s)
		held, err := s.HeldBytes(ctx, append(slices.Clone(snapshots), 1<<40))
		if err != nil {
			t.Fatal(err)
		}
		before := s.LiveBytes()
		each := int64(0)
		for i, id := range snapshots {
			if err := s.DeleteSnapshot(ctx, id); err != nil {
				t.Fatal(err)
			}
			settle(t, s)
			if gone := before - s.LiveBytes(); i == 0 && gone > held.Each[0] {
				t.Fatalf("deleting one snapshot gave back %d bytes, at most %d were said", gone, held.Each[0])
			}
			each = max(each, held.Each[i])
		}
		if gone := before - s.LiveBytes(); gone != held.Total || each > held.Total || held.Each[len(snapshots)] != 0 {
			t.Fatalf("deleting all gave back %d bytes; said %+v", gone, held)
		}
	})
}

// A write that does not fit asks for room, and goes on when there is some.
func TestFullStoreAsksForRoom(t *testing.T) {
	ctx := context.Background()
	o := newDisk().options(Options{DedupUnit: 4 << 10})
	o.CapacityBytes = 4 << 20
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := createVolume(t, s, "v", 16<<20)
	write := func(seed uint64) error {
		p := make([]byte, 2<<20)
		unique(p, seed)
		return v.WriteAt(ctx, p, 0)
	}
	if err := write(1); err != nil {
		t.Fatal(err)
	}
	n, err := v.Snapshot(ctx, []Range{{Offset: 0, Length: 2 << 20}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := n.ID()
	n.Release()
	if err := write(2); err != nil {
		t.Fatal(err)
	}
	if err := write(3); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("with nobody to ask: %v", err)
	}
	asked := 0
	s.OnFull(func(ctx context.Context, need int64) bool {
		asked++
		if need <= 0 || need > 2<<20 {
			t.Errorf("asked for %d bytes", need)
		}
		return s.DeleteSnapshot(ctx, id) == nil
	})
	if err := write(3); err != nil || asked != 1 {
		t.Errorf("%v after %d requests", err, asked)
	}
	p := make([]byte, 12<<20)
	unique(p, 9)
	if err := v.WriteAt(ctx, p, 4<<20); !errors.Is(err, ErrNoSpace) {
		t.Errorf("with nothing to give up: %v", err)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
}
