package backstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/segment"
	"odx/backstore/vfs"
)

// TestCheckFindings tampers with each kind of structure, and wants the finding
// that names it.
func TestCheckFindings(t *testing.T) {
	ctx := context.Background()
	move := func(s *Store, id extent.ID, to segment.Addr) error {
		x, _, err := s.extents.Get(id)
		if err == nil {
			_, err = s.extents.Move(id, x.Addr, to)
		}
		return err
	}
	// stored changes a value of the engine behind the store's back.
	stored := func(prefix byte, number uint64, change func(value []byte) []byte) func(*Store, *Volume) error {
		key := tableKey(prefix, number)
		return func(s *Store, _ *Volume) error {
			value, err := s.kv.Get(key)
			if err != nil && !errors.Is(err, meta.ErrNotFound) {
				return err
			}
			return s.kv.Store(0, func(put func(meta.Op) error) error {
				return put(meta.Op{Key: key, Value: change(value)})
			})
		}
	}
	remove := func([]byte) []byte { return nil }
	cut := func(value []byte) []byte { return value[:len(value)-1] }
	for name, tt := range map[string]struct {
		tamper func(s *Store, v *Volume) error
		want   string
	}{
		"extent with a reference too many": {
			func(s *Store, _ *Volume) error { return s.extents.Ref([]extent.Slot{s.extents.Slot(2, 0)}) },
			"extent 2 has a reference count of 5 and 4 references",
		},
		"extent with a reference too few": {
			func(s *Store, _ *Volume) error { return s.extents.Unref([]extent.Slot{s.extents.Slot(2, 0)}) },
			"extent 2 has a reference count of 3 and 4 references",
		},
		"node with a reference too many": {
			func(s *Store, v *Volume) error { return s.forest.Hold(v.root) },
			"map node 1 has a reference count of 2 and 1 references",
		},
		"tree without an owner": {
			func(s *Store, v *Volume) error { v.root = blockmap.Root{Level: v.root.Level}; return nil },
			"map node 1 is stored and has no references",
		},
		"extent on another": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 1, Block: 5}) },
			"extent 3 lies on another extent at segment 00000001 block 5",
		},
		"extent on the header": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 1}) },
			"extent 3 has 4 blocks at segment 00000001 block 0, which has 65",
		},
		"extent beyond the end": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 1, Block: 62}) },
			"extent 3 has 4 blocks at segment 00000001 block 62, which has 65",
		},
		"node that is missing": {
			stored('n', 1, remove),
			"map node 1 does not exist and has 1 references",
		},
		"node that is cut short": {
			stored('n', 1, cut),
			"map node 1 cannot be read",
		},
		"node of the wrong level": {
			stored('n', 1, func(value []byte) []byte { value[0] = 3; return value }),
			"map node 1 has level 3 where another level is expected",
		},
		"count of a node that does not exist": {
			stored('c', 0, func([]byte) []byte { return []byte{77, 1, 4} }),
			"map node 77 has a reference count of 3 and does not exist",
		},
		"counts that are cut short": {
			stored('c', 0, func([]byte) []byte { return []byte{77} }),
			"reference counts of map nodes 0 to 511 cannot be read",
		},
		"extent that is dead for its count": {
			stored('x', 0, func([]byte) []byte { return []byte{2, 1, 7} }),
			"a map names block 0 of extent 2, which does not exist",
		},
		"count of an extent that does not exist": {
			stored('x', 0, func([]byte) []byte { return []byte{100, 1, 2} }),
			"extent 100 has a reference count and does not exist",
		},
		"counts of extents that are cut short": {
			stored('x', 0, func([]byte) []byte { return []byte{100} }),
			"reference counts of extents 0 to 511 cannot be read",
		},
		"extents that are missing": {
			stored('e', 0, remove),
			"a map names block 0 of extent 1, which does not exist",
		},
		"extents that are cut short": {
			stored('e', 0, cut),
			"extents 0 to 127 cannot be read",
		},
		"slot beyond the end of its extent": {
			stored('e', 0, func(value []byte) []byte {
				// Of the 16 extents of 4 blocks the first has 3, and there is a CRC less.
				const lengths = 1 + 16
				return slices.Concat(value[:lengths], []byte{1, 3, 15, 4}, value[lengths+2:len(value)-4])
			}),
			"a map names block 3 of extent 1, which does not exist",
		},
		"segment that is missing": {
			func(s *Store, _ *Volume) error { return move(s, 3, segment.Addr{Segment: 9, Block: 1}) },
			"segment 00000009 is missing or is no segment of this store; 1 extents lie in it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newDisk().open(t, 16<<10)
			defer s.Close()
			v := createVolume(t, s, "v", 1<<20)
			if err := v.WriteAt(ctx, randomBytes(1, 256<<10), 0); err != nil {
				t.Fatal(err)
			}
			if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
				t.Fatalf("before it: %v %v", findings, err)
			}
			s.opMu.RLock()
			err := tt.tamper(s, v)
			s.opMu.RUnlock()
			if err != nil {
				t.Fatal(err)
			}
			findings, err := s.Check(ctx)
			if err != nil || len(findings) == 0 || !strings.Contains(strings.Join(findings, "\n"), tt.want) {
				t.Errorf("got %v %v, want %s", findings, err, tt.want)
			}
		})
	}
}

func TestCheckBoundsItsFindings(t *testing.T) {
	const blocks = maxFindings + 100
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 8<<20)
	if err := v.WriteAt(ctx, randomBytes(1, blocks*BlockLength), 0); err != nil {
		t.Fatal(err)
	}
	s.opMu.RLock()
	for id := range extent.ID(blocks) {
		if err := s.extents.Ref([]extent.Slot{s.extents.Slot(id+1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	s.opMu.RUnlock()
	findings, err := s.Check(ctx)
	if err != nil || len(findings) != maxFindings+1 || findings[maxFindings] != "and 100 more" {
		t.Errorf("%d findings, %v", len(findings), err)
	}
	canceled, cancel := context.WithCancel(ctx)
	s.opts.FS.(*vfs.Mem).SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpSync {
			cancel()
		}
		return nil
	})
	if _, err := s.Check(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// busyReader lets others work on the store while the checker has a view of it.
type busyReader struct {
	meta.Reader
	work func() error
}

func (r busyReader) Scan(prefix []byte, fn func(key, value []byte) error) error {
	if err := r.work(); err != nil {
		return err
	}
	return r.Reader.Scan(prefix, fn)
}

// TestCheckHoldsNobodyUp: the whole of it can happen between two instants of a
// check: volumes are made, written, copied and deleted, segments are cleaned and
// removed, checkpoints are stored. None of it is a finding.
func TestCheckHoldsNobodyUp(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	o := d.options(Options{DedupUnit: 4 << 10, CacheBytes: 4 << 20})
	var s *Store
	round := uint64(0)
	work := func() error {
		if s == nil {
			return nil // it is being opened
		}
		round++
		v, err := s.Volume("v")
		if err != nil {
			return err
		}
		name := fmt.Sprint("clone", round)
		_, err = s.CloneVolume(ctx, "v", name)
		err = errors.Join(err, v.WriteAt(ctx, randomBytes(round, 1<<20), int64(round%15)<<19), s.Clean(ctx))
		if round > 2 {
			err = errors.Join(err, s.DeleteVolume(ctx, fmt.Sprint("clone", round-2)))
		}
		return errors.Join(err, s.Checkpoint(ctx))
	}
	o.viewed = func(r meta.Reader) meta.Reader { return busyReader{r, work} }
	opened, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	s = opened
	defer s.Close()
	createVolume(t, s, "v", 8<<20)
	for range 4 {
		if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
			t.Error(findings, err)
		}
	}
}

// TestCheckKnowsPins: an extent that a writer has just found to be what it wants
// to write may be without a reference.
func TestCheckKnowsPins(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 4096)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	plan := s.newPlan()
	if err := s.prepare(plan, v, 1, data); err != nil {
		t.Fatal(err)
	}
	if err := v.Zero(ctx, 0, 4096); err != nil {
		t.Fatal(err)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error("with a pin:", findings, err)
	}
	s.opMu.RLock()
	err := s.discard(plan)
	s.opMu.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error("afterwards:", findings, err)
	}
}

// TestCheckBesideWriters: what writers are in the middle of is no finding.
func TestCheckBesideWriters(t *testing.T) {
	const size = 4 << 20
	ctx := context.Background()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", size)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for w := range uint64(4) {
		busy.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				// Few contents: extents lose their last reference while another
				// writer has just found them to be what it wants to write.
				off := int64((i*7+w)%(size>>14)) << 14
				if err := v.WriteAt(ctx, randomBytes(i%3, 16<<10), off); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
			t.Error(findings, err)
			break
		}
	}
	close(stop)
	busy.Wait()
}

// TestCheck_DamageThatWasRead: what is left of a damaged store can be free of
// contradictions, which does not make it sound.
func TestCheck_DamageThatWasRead(t *testing.T) {
	m := makeDamageable(t)
	for name := range m.files {
		if filepath.Dir(name) == "/store/"+journalDir {
			delete(m.files, name)
		}
	}
	s, err := Open(context.Background(), readOnly(m.options(m.on(t, m.files))))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	findings, err := s.Check(context.Background())
	want := []string{"/store/journal: ", "store: " + ErrCorrupt.Error() + ": it is shown as it was before record "}
	if err != nil || !slices.EqualFunc(findings, want, strings.HasPrefix) {
		t.Errorf("%q, %v, want the journal, and what is shown without it: %q", findings, err, want)
	}
}
