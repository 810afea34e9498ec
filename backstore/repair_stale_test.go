package backstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit/sample"
)

// staleHistory changes a store in all ways, at random.
type staleHistory struct {
	t   *testing.T
	s   *Store
	rng *rand.Rand
	n   int // of names
}

func (h *staleHistory) any(file bool) *Volume {
	all := slices.DeleteFunc(h.s.catalog.all(), func(v *Volume) bool { return v.file != file })
	if len(all) == 0 {
		return nil
	}
	return all[h.rng.IntN(len(all))]
}

func (h *staleHistory) name() string {
	h.n++
	return fmt.Sprint("n", h.n)
}

// data returns bytes that no other change writes.
func (h *staleHistory) data(n int64) []byte {
	p := make([]byte, n)
	for at := int64(0); at < n; at += 8 {
		binary.LittleEndian.PutUint64(p[at:], h.rng.Uint64())
	}
	return p
}

// step makes one change.
func (h *staleHistory) step() error {
	ctx, rng := context.Background(), h.rng
	v, f := h.any(false), h.any(true)
	at := rng.Int64N(v.Size()/BlockLength-64) * BlockLength
	length := (1 + rng.Int64N(40)) * BlockLength
	switch rng.IntN(12) {
	default:
		return v.WriteAt(ctx, h.data(length), at)
	case 5:
		return v.Unmap(ctx, at, length)
	case 6:
		n, err := v.Snapshot(ctx, []Range{{Offset: at, Length: length}}, func(id uint64) []Record {
			return []Record{{Key: fmt.Append(nil, "token", id), Value: []byte("t")}}
		})
		if err != nil {
			return err
		}
		defer n.Release()
		to := h.any(false)
		_, err = to.Map(ctx, rng.Int64N(to.Size()/BlockLength-64)*BlockLength, n, 0, length)
		return err
	case 7:
		_, err := h.s.CloneVolume(ctx, v.Name(), h.name())
		return err
	case 8:
		if len(h.s.Volumes()) < 4 {
			return nil
		}
		return h.s.DeleteVolume(ctx, v.Name())
	case 9:
		if f == nil || rng.IntN(2) == 0 {
			var err error
			if f, err = h.s.CreateFile(ctx, h.name()); err != nil {
				return err
			}
		}
		return errors.Join(f.Truncate(ctx, (16+rng.Int64N(200))*BlockLength), f.WriteAt(ctx, h.data(64<<10), 0))
	case 10:
		g := h.any(true)
		if f == nil || f == g {
			return nil
		}
		return h.s.RenameFile(ctx, f.Name(), g.Name())
	case 11:
		return h.s.PutRecords(ctx, Record{Key: []byte{'k', byte(rng.IntN(4))}, Value: h.data(8)})
	}
}

// staleWant is what a store had last.
type staleWant struct {
	content map[string]string
	numbers map[string]uint64 // of volumes and files
}

func staleWantOf(t *testing.T, s *Store) staleWant {
	t.Helper()
	w := staleWant{numbers: make(map[string]uint64)}
	w.content, _ = readable(t, s)
	for _, v := range s.catalog.all() {
		w.numbers[v.String()] = v.number
	}
	return w
}

// names reports whether what is said, of a store, is that a volume or file is missing:
// by its name, by its number, or by an older name under which the store shows it.
func (w *staleWant) names(s *Store, what, said string) bool {
	number := w.numbers[what]
	older := s.catalog.volumes[number]
	return strings.Contains(said, what) || strings.Contains(said, fmt.Sprintf("the row of number %d is lost", number)) ||
		older != nil && strings.Contains(said, "{"+older.String()+" ")
}

// staleStore is a store of several runs, whose journal has changes of all kinds that
// none of them has.
func staleStore(t *testing.T, seed uint64, o Options) (files map[string][]byte, want staleWant) {
	t.Helper()
	ctx := context.Background()
	d := newDisk()
	s, err := Open(ctx, d.options(o))
	if err != nil {
		t.Fatal(err)
	}
	h := staleHistory{t: t, s: s, rng: rand.New(rand.NewPCG(seed, 1))}
	createVolume(t, s, "a", 4<<20)
	createVolume(t, s, "b", 8<<20)
	for i := range 120 {
		if err := h.step(); err != nil {
			t.Fatal(err)
		}
		if i%20 == 19 && i < 100 {
			if err := s.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	want = staleWantOf(t, s)
	s.life.cancel()
	s.life.background.Wait()
	if err := errors.Join(s.Flush(ctx), s.closeFiles()); err != nil {
		t.Fatal(err)
	}
	return filesOf(t, d.fs), want
}

// wantNothingOlder proves that each block is what it was last, or a read error; that
// what is there under a name, or in a size, that was not the last one is said. It
// returns how many blocks are right and how many are errors.
func wantNothingOlder(t *testing.T, s *Store, want staleWant, said string) (right, bad int) {
	t.Helper()
	got, lost := readable(t, s)
	for what, content := range got {
		if strings.HasPrefix(what, "record ") {
			continue
		}
		last, ok := want.content[what]
		if (!ok || len(last) != len(content)) && !strings.Contains(said, what) {
			t.Errorf("%s has %d bytes, had %d, and that is not said", what, len(content), len(last))
		}
		for off := 0; off < len(content); off += BlockLength {
			switch end := min(off+BlockLength, len(content)); {
			case slices.Contains(lost[what], int64(off)):
				bad++
			case off >= len(last) || content[off:end] != last[off:min(end, len(last))]:
				t.Errorf("%s at block %d has something older", what, off/BlockLength)
				return right, bad
			default:
				right++
			}
		}
	}
	for what := range want.numbers {
		if _, ok := got[what]; !ok && !want.names(s, what, said) {
			t.Errorf("%s is not there, and that is not said", what)
		}
	}
	return right, bad
}

// TestRepair_NothingOlder loses rows of the metadata, in every copy, behind which the
// journal has changes: whole runs and parts of them. A block of what a rescue shows,
// and of the repaired store, is what it was last or a read error.
func TestRepair_NothingOlder(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 8 << 10, CacheBytes: 4 << 20, tuning: tuning{mergeFloor: 1 << 40}}
	right, bad, every := 0, 0, sample.Size(24, 4, 1)
	for seed := range sample.Size[uint64](1, 2, 2) {
		all, want := staleStore(t, seed, o)
		var runs []string
		for name := range all {
			if strings.HasSuffix(name, ".rows") {
				runs = append(runs, name)
			}
		}
		slices.Sort(runs)
		try := func(what string, left map[string][]byte) {
			t.Run(fmt.Sprint(seed, "/", what), func(t *testing.T) {
				d := (&damageable{}).on(t, left)
				rescued, err := Open(ctx, readOnly(d.options(o)))
				if errors.Is(err, ErrCorrupt) {
					return // nothing is shown
				}
				if err != nil {
					t.Fatal(err)
				}
				damage, _ := rescued.Damage()
				wantNothingOlder(t, rescued, want, fmt.Sprint(damage))
				r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: "/new"})
				if errors.Is(err, ErrLocked) {
					if err = rescued.Close(); err == nil {
						r, err = Repair(ctx, RepairOptions{Options: d.options(o), To: "/new"})
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				s := d.openAt(t, "/new")
				defer s.Close()
				if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
					t.Error(findings, err)
				}
				ok, lost := wantNothingOlder(t, s, want, fmt.Sprint(r.Lost, r.Unused))
				right, bad = right+ok, bad+lost
			})
		}
		for i, run := range runs {
			left := maps.Clone(all)
			delete(left, run)
			delete(left, run+".copy")
			if i < len(runs)-1 && i%sample.Size(3, 1, 1) == 0 { // that the newest one is missing is what the journal tells
				try("lost "+filepath.Base(run), left)
			}
			for off := i % every * BlockLength; off < len(all[run]); off += every * BlockLength {
				left := maps.Clone(all)
				for _, name := range []string{run, run + ".copy"} {
					left[name] = bytes.Clone(all[name])
					left[name][off+10] ^= 1
				}
				try(fmt.Sprint("flipped at ", off, " of ", filepath.Base(run)), left)
			}
		}
	}
	if right < bad/4 || bad == 0 {
		t.Errorf("%d blocks are right, %d are read errors", right, bad)
	}
	t.Logf("%d blocks are right, %d are read errors", right, bad)
}
