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

	"odx/backstore/extent"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/vfs"
)

func TestCheckBoundsItsFindings(t *testing.T) {
	const blocks = maxFindings + 100
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 8<<20)
	if err := v.WriteAt(ctx, randomBytes(1, blocks*BlockLength), 0); err != nil {
		t.Fatal(err)
	}
	s.opMu.RLock()
	for id := range extent.ID(blocks) {
		if err := s.parts.extents.Ref([]extent.Slot{s.parts.extents.Slot(id+1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	s.opMu.RUnlock()
	findings, err := s.Check(ctx)
	if err != nil || len(findings) != maxFindings+1 || findings[maxFindings] != "and 100 more" {
		t.Errorf("%d findings, %v", len(findings), err)
	}
	canceled, cancel := context.WithCancel(ctx)
	d.fs.SetHook(func(kind vfs.OpKind, name string) error {
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
	o.tuning.viewed = func(r meta.Reader) meta.Reader { return busyReader{r, work} }
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
		if filepath.Dir(name) == "/store/"+layout.JournalDir {
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
