package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/vfs"
	"odx/internal/kit/logs"
)

// repairDisk makes a store with volumes, a clone, a snapshot, a file and records,
// of which the last part is only in the journal, and returns what is in it.
func repairDisk(t *testing.T, o Options, records ...Record) map[string]string {
	t.Helper()
	ctx := context.Background()
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	v := createVolume(t, s, "v", 15<<20)
	for i := range 30 {
		if err := v.WriteAt(ctx, randomBytes(uint64(i), 32<<10), int64(i)*(512<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.CloneVolume(ctx, "v", "clone"); err != nil {
		t.Fatal(err)
	}
	f, err := s.CreateFile(ctx, "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(ctx, 100001), f.WriteAt(ctx, randomBytes(100, 100001), 0)); err != nil {
		t.Fatal(err)
	}
	n, err := v.Snapshot(ctx, []Range{{Offset: 4096, Length: 1 << 20}}, func(id uint64) []Record {
		return []Record{{Key: []byte("token"), Value: fmt.Append(nil, id)}}
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Release()
	if err := errors.Join(s.PutRecords(ctx, records...), s.Checkpoint(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.WriteAt(ctx, randomBytes(200, 8192), 3<<20), s.Flush(ctx),
		v.WriteAt(ctx, randomBytes(201, 128<<10), 5<<20), v.Unmap(ctx, 0, 4096), s.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	all, _ := readable(t, s)
	// As after SIGKILL: what is in the journal stays there.
	s.life.cancel()
	s.life.background.Wait()
	if err := errors.Join(s.Flush(ctx), s.closeFiles()); err != nil {
		t.Fatal(err)
	}
	return all
}

// readable reads a store whose blocks may be lost: those are zeros in what it
// returns, and listed.
func readable(t *testing.T, s *Store) (all map[string]string, lost map[string][]int64) {
	t.Helper()
	all, lost = make(map[string]string), make(map[string][]int64)
	for _, v := range s.catalog.all() {
		b := make([]byte, v.Size())
		for off := int64(0); off < v.Size(); off += BlockLength {
			part := b[off:min(off+BlockLength, v.Size())]
			if err := v.ReadAt(context.Background(), part, off); err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Errorf("%v at %d: %v, want ErrCorrupt", v, off, err)
				}
				clear(part)
				lost[v.String()] = append(lost[v.String()], off)
			}
		}
		all[v.String()] = string(b)
	}
	err := s.ScanRecords(nil, func(key, value []byte) error {
		all["record "+string(key)] = string(value)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return all, lost
}

// wantRepaired proves a repaired store: it is sound, and each block is what it was
// or a read error that was reported.
func wantRepaired(t *testing.T, s *Store, want map[string]string, r Repaired) {
	t.Helper()
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
	got, lost := readable(t, s)
	reported := func(what string, off int64) bool {
		for _, l := range r.Lost {
			if l.What == what && l.Offset <= off && off < l.Offset+l.Length {
				return true
			}
		}
		return false
	}
	for what, content := range got {
		bad := make(map[int64]bool)
		for _, off := range lost[what] {
			bad[off] = true
			if !reported(what, off) {
				t.Errorf("%s at %d is lost and was not reported: %+v", what, off, r.Lost)
			}
		}
		if len(content) != len(want[what]) {
			t.Fatalf("%s has %d bytes, want %d", what, len(content), len(want[what]))
		}
		for off := int64(0); off < int64(len(content)); off += BlockLength {
			end := min(off+BlockLength, int64(len(content)))
			if !bad[off] && content[off:end] != want[what][off:end] {
				t.Errorf("%s at %d has other bytes", what, off)
			}
		}
	}
}

func (d *disk) repair(t *testing.T, to string) Repaired {
	t.Helper()
	r, err := Repair(context.Background(), RepairOptions{Options: d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}), To: to})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (d *disk) openAt(t *testing.T, dir string) *Store {
	t.Helper()
	o := d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20})
	o.Dir = dir
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRepair_Whole: a store that is whole is the same after it, and nothing of the
// old one has changed.
func TestRepair_Whole(t *testing.T) {
	d := newDisk()
	want := repairDisk(t, d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}))
	before := files(t, d.fs, "/store")
	r := d.repair(t, "/new")
	if r.LostBytes != 0 || len(r.Lost) > 0 || r.Volumes != 3 || r.Snapshots != 1 || r.Records != 1 {
		t.Errorf("%+v", r)
	}
	if after := files(t, d.fs, "/store"); !maps.EqualFunc(after, before, bytes.Equal) {
		t.Error("the old store has changed")
	}
	s := d.openAt(t, "/new")
	defer s.Close()
	if !same(contents(t, s), want) {
		t.Error("the repaired store has something else")
	}
	n, err := s.Snapshot(1)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Release()
	if err := n.ReadAt(context.Background(), make([]byte, n.Length()), 0); err != nil {
		t.Error(err)
	}
	if _, err := Repair(context.Background(), RepairOptions{Options: d.options(Options{}), To: "/new"}); !errors.Is(err, ErrExists) {
		t.Errorf("into a directory that is not empty: %v, want ErrExists", err)
	}
}

// TestRepair_MissingSegments: what lies in them is a read error, named by volume
// and range, until it is written again.
func TestRepair_MissingSegments(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{segmentBlocks: 65}}
	d := newDisk()
	want := repairDisk(t, d.options(o))
	if err := d.fs.Remove("/store/segments/00000002.seg"); err != nil {
		t.Fatal(err)
	}
	r := d.repair(t, "/new")
	if r.LostBytes == 0 || !strings.Contains(fmt.Sprint(r.Lost), "{volume v ") || !strings.Contains(fmt.Sprint(r.Lost), "segment 00000002") {
		t.Errorf("%+v", r)
	}
	s := d.openAt(t, "/new")
	defer s.Close()
	wantRepaired(t, s, want, r)
	_, lost := readable(t, s)
	v, err := s.Volume("v")
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range lost["volume v"] {
		if err := v.WriteAt(ctx, []byte(want["volume v"][off:off+BlockLength]), off); err != nil {
			t.Fatal(err)
		}
	}
	if again, _ := readable(t, s); len(lost["volume v"]) == 0 || again["volume v"] != want["volume v"] {
		t.Errorf("volume v is not right after %d blocks were written again", len(lost["volume v"]))
	}
	if err := s.DeleteVolume(ctx, "clone"); err != nil {
		t.Fatal(err)
	}
	if err := s.reapAll(ctx); err != nil {
		t.Fatal(err)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
}

// TestRepair_DamagedRows damages one part after the other of both copies of
// the metadata: whatever rows that costs, no other data is lost.
func TestRepair_DamagedRows(t *testing.T) {
	d := newDisk()
	// Long records between the other rows, which are in several tables then.
	var long []Record
	for i := range 4 {
		long = append(long, Record{Key: fmt.Append(nil, "long", i), Value: randomBytes(uint64(300+i), 40<<10)})
	}
	want := repairDisk(t, d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}), long...)
	before := files(t, d.fs, "/store")
	lossy, unused := 0, make(map[string]int)
	for name, content := range before {
		if filepath.Dir(name) != "/store/checkpoints" || !strings.HasSuffix(name, ".rows") {
			continue
		}
		// Any damaged block costs its whole table, which is 16 blocks.
		for off := 0; off < len(content); off += 4 * BlockLength {
			for _, copyOf := range []string{name, name + ".copy"} {
				bad := bytes.Clone(before[copyOf])
				for at := off; at < min(off+BlockLength, len(bad)); at += 97 {
					bad[at] ^= 0x10
				}
				put(t, d.fs, copyOf, bad)
			}
			to := fmt.Sprint("/new", filepath.Base(name), off)
			r, err := Repair(context.Background(), RepairOptions{Options: d.options(Options{CacheBytes: 4 << 20}), To: to})
			if err != nil {
				t.Errorf("%s, block at %d: %v", name, off, err)
			} else {
				s := d.openAt(t, to)
				wantRepaired(t, s, want, r)
				if len(r.Lost) > 0 {
					lossy++
				}
				for _, why := range []string{"not in the last checkpoint is not known", errLostVolume.Error()} {
					if strings.Contains(fmt.Sprint(r.Lost), why) {
						unused[why]++
						if !strings.Contains(lines(r.Unused), "write, volume") {
							t.Errorf("%s, block at %d: %q, and no record that is not used: %+v", name, off, why, r)
						}
					}
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			put(t, d.fs, name, content)
			put(t, d.fs, name+".copy", before[name+".copy"])
		}
	}
	if lossy == 0 {
		t.Error("no damage was met")
	}
	if len(unused) != 2 {
		t.Errorf("repairs that leave out records: %v", unused)
	}
	t.Logf("%d repairs with losses", lossy)
}

// TestRepair_DamagedJournal: what is before the damage is kept, what is after it is
// reported.
func TestRepair_DamagedJournal(t *testing.T) {
	d := newDisk()
	want := repairDisk(t, d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}))
	for name, content := range files(t, d.fs, "/store") {
		if filepath.Dir(name) == "/store/journal" {
			bad := bytes.Clone(content)
			bad[4096+100] ^= 1
			put(t, d.fs, name, bad)
		}
	}
	_, err := Open(context.Background(), d.options(Options{}))
	if !errors.Is(err, journal.ErrCorrupt) || !strings.Contains(err.Error(), "write, volume v, 131072 bytes at 5242880") || !strings.Contains(err.Error(), "odx store repair") {
		t.Errorf("opening it: %v, want ErrCorrupt with what can be read after the damage, and what to do", err)
	}
	rescued, err := Open(context.Background(), readOnly(d.options(Options{})))
	if err != nil {
		t.Fatal(err)
	}
	list, _ := rescued.Damage()
	if text := fmt.Sprint(list); !strings.Contains(text, "{volume v, 131072 bytes at 5242880 ") {
		t.Errorf("damage: %s", text)
	}
	if err := rescued.Close(); err != nil {
		t.Error(err)
	}
	r := d.repair(t, "/new")
	if len(r.Lost) == 0 || !strings.Contains(fmt.Sprint(r.Lost), "record") {
		t.Errorf("%+v", r)
	}
	first := firstUnused(t, r)
	wantUnused(t, r,
		UnusedChange{FirstLSN: first, LastLSN: first, Records: 1, Change: Change{Kind: "write", What: "volume v", Offset: 5 << 20, Length: 128 << 10}},
		UnusedChange{FirstLSN: first + 1, LastLSN: first + 1, Records: 1, Change: Change{Kind: "unmap", What: "volume v", Length: 4096}})
	s := d.openAt(t, "/new")
	defer s.Close()
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
	got, lost := readable(t, s)
	if len(lost) > 0 || got["file f"] != want["file f"] || got["record token"] != want["record token"] {
		t.Errorf("what the checkpoint has is not there: %v", lost)
	}
}

// TestRepair_NoMetadata: in place an empty store would give up all segments.
func TestRepair_NoMetadata(t *testing.T) {
	d := newDisk()
	repairDisk(t, d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}))
	for name := range files(t, d.fs, "/store") {
		if strings.Contains(name, ".rows") {
			if err := d.fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := files(t, d.fs, "/store")
	r, err := Repair(context.Background(), RepairOptions{Options: d.options(Options{})})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "/store/checkpoints") {
		t.Errorf("%+v, %v, want ErrCorrupt that names the directory", r, err)
	}
	if after := files(t, d.fs, "/store"); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("a refused repair has changed files")
	}
}

// forbidden is a file system on which this user may not open some files.
type forbidden struct{ vfs.FS }

func (f forbidden) Open(name string) (vfs.File, error) {
	if strings.HasSuffix(name, "00000001.seg") {
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrPermission}
	}
	return f.FS.Open(name)
}

// TestRepair_Forbidden: a segment that is there and may not be read is not lost.
func TestRepair_Forbidden(t *testing.T) {
	d := newDisk()
	repairDisk(t, d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}))
	before := files(t, d.fs, "/store")
	o := d.options(Options{})
	o.FS = forbidden{o.FS}
	for _, to := range []string{"", "/new"} {
		r, err := Repair(context.Background(), RepairOptions{Options: o, To: to})
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "00000001.seg") {
			t.Errorf("repair to %q: %+v, %v, want an error that names the segment", to, r, err)
		}
	}
	if after := files(t, d.fs, "/store"); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("a refused repair has changed files")
	}
}

// TestRepair_InPlace: the metadata is replaced and kept next to it, also when that
// was interrupted.
func TestRepair_InPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	o := Options{Dir: dir, Log: logs.Discard(), DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{segmentBlocks: 65}}
	want := repairDisk(t, o)
	if err := os.Remove(filepath.Join(dir, layout.SegmentDir, "00000003.seg")); err != nil {
		t.Fatal(err)
	}
	r, err := Repair(context.Background(), RepairOptions{Options: o})
	if err != nil || r.LostBytes == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	check := func() {
		t.Helper()
		s, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		wantRepaired(t, s, want, r)
		if s.Moved() {
			t.Error("the repaired store is taken for a copy")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	check()
	for _, name := range []string{layout.CheckpointDir, layout.JournalDir} {
		if _, err := os.Stat(filepath.Join(dir, layout.DamagedDir, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, layout.RepairDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was made is still aside: %v", err)
	}
	// A swap that was interrupted between the two directories.
	m := repair{o: RepairOptions{Options: o}}
	if err := m.o.Options.setDefaults(); err != nil {
		t.Fatal(err)
	}
	m.fsys, m.result = m.o.FS, &Repaired{}
	if err := m.close(errors.Join(m.open(context.Background()), m.run(context.Background()))); err != nil {
		t.Fatal(err)
	}
	m.fsys = m.o.FS // swap claims the store again
	if err := m.swapOne(layout.CheckpointDir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), o); err == nil {
		t.Error("a store that is half repaired opens")
	}
	if _, err := Repair(context.Background(), RepairOptions{Options: o}); err != nil {
		t.Fatal(err)
	}
	check()
}
