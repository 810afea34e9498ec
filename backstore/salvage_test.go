package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit/must"
)

// TestRepair_LostRuns loses both copies of one run of metadata after the other: what
// later runs have is right, everything else is named and reads as an error, and
// neither an older version of a map nor zeros are shown for it.
func TestRepair_LostRuns(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{mergeFloor: 1 << 40}}
	d := newDisk()
	want := runsOn(t, d, o)
	all := filesOf(t, d.fs)
	var runs []string
	for name := range all {
		if strings.HasSuffix(name, ".rows") {
			runs = append(runs, name)
		}
	}
	slices.Sort(runs)
	if len(runs) < 4 {
		t.Fatalf("%d runs", len(runs))
	}
	for i, run := range runs[:len(runs)-1] { // that the newest one is missing is what the journal tells
		t.Run(filepath.Base(run), func(t *testing.T) {
			left := maps.Clone(all)
			delete(left, run)
			delete(left, run+".copy")
			d := (&damageable{}).on(t, left)
			if _, err := Open(ctx, d.options(o)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), run) || !strings.Contains(err.Error(), "odx store repair") {
				t.Fatalf("opening it: %v, want ErrCorrupt that names the file and what to do", err)
			}
			r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: "/new"})
			if err != nil {
				t.Fatal(err)
			}
			s := d.openAt(t, "/new")
			defer s.Close()
			wantRepaired(t, s, want, r)
			got, lost := readable(t, s)
			if _, ok := got["volume old"]; !ok || len(got) < 2 {
				t.Errorf("there are %v: names are in the last run", slices.Collect(maps.Keys(got)))
			}
			if i < 2 && len(lost["volume new"]) > 0 {
				t.Errorf("%d blocks of volume new are lost, all of which are in later runs", len(lost["volume new"]))
			}
			if after := filesOf(t, d.fs); !maps.EqualFunc(left, after, bytes.Equal) {
				t.Error("the damaged store has changed")
			}
		})
	}
}

// runsOn makes a store of some runs, none of which are merged.
func runsOn(t *testing.T, d *disk, o Options) (want map[string]string) {
	t.Helper()
	ctx := context.Background()
	s, err := Open(ctx, d.options(o))
	if err != nil {
		t.Fatal(err)
	}
	old := createVolume(t, s, "old", 8<<20)
	must.Succeed(t, old.WriteAt(ctx, randomBytes(1, 1<<20), 0), s.Checkpoint(ctx))
	n, err := old.Snapshot(ctx, []Range{{Offset: 0, Length: 1 << 20}}, nil)
	must.Succeed(t, err)
	n.Release()
	must.Succeed(t, old.WriteAt(ctx, randomBytes(2, 64<<10), 0), s.Checkpoint(ctx))
	fresh := createVolume(t, s, "new", 8<<20)
	must.Succeed(t, fresh.WriteAt(ctx, randomBytes(3, 1<<20), 4<<20), s.Checkpoint(ctx))
	must.Succeed(t, old.WriteAt(ctx, randomBytes(4, 64<<10), 6<<20), s.Checkpoint(ctx))
	want, _ = readable(t, s)
	must.Succeed(t, s.Close())
	return want
}

// TestRepair_LostVolumeRows loses the rows of all volumes, in the newest run that has
// them and in both copies: their names and sizes are those of older runs, their data is
// lost and said to be, and a repair in place refuses.
func TestRepair_LostVolumeRows(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{mergeFloor: 1 << 40}}
	d := newDisk()
	want := runsOn(t, d, o)
	all := filesOf(t, d.fs)
	var runs []string
	for name := range all {
		if strings.HasSuffix(name, ".rows") {
			runs = append(runs, name)
		}
	}
	newest := slices.Max(runs)
	for _, name := range []string{newest, newest + ".copy"} {
		bad := bytes.Clone(all[name])
		bad[BlockLength+10] ^= 1 // in its first table
		all[name] = bad
	}
	d = (&damageable{}).on(t, all)
	if _, err := Repair(ctx, RepairOptions{Options: d.options(o)}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "--to") {
		t.Errorf("in place: %v, want ErrCorrupt that says what to do", err)
	}
	if after := filesOf(t, d.fs); !maps.EqualFunc(all, after, bytes.Equal) {
		t.Error("a refused repair has changed the store")
	}
	r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: "/new"})
	if err != nil {
		t.Fatal(err)
	}
	s := d.openAt(t, "/new")
	defer s.Close()
	wantRepaired(t, s, want, r)
	got, lost := readable(t, s)
	for what := range want {
		if len(got[what]) != len(want[what]) || len(lost[what])*BlockLength != len(want[what]) {
			t.Errorf("%s has %d bytes, %d blocks of them are lost, want all of %d bytes", what, len(got[what]), len(lost[what]), len(want[what]))
		}
		if !strings.Contains(fmt.Sprint(r.Lost), "{"+what+" 0 0 ") {
			t.Errorf("that %s is an older version is not said: %+v", what, r.Lost)
		}
	}
}

// TestRepair_MissingVolumes loses rows that no older run has: each volume and file of
// one is named by what the journal says last of its name, or by its number, in a rescue
// and after a repair, and a repair in place refuses.
func TestRepair_MissingVolumes(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{mergeFloor: 1 << 40}}
	d := newDisk()
	s, err := Open(ctx, d.options(o))
	if err != nil {
		t.Fatal(err)
	}
	createVolume(t, s, "old", 1<<20)
	file := func(name string) *Volume {
		t.Helper()
		v, err := s.CreateFile(ctx, name)
		must.Succeed(t, err)
		return v
	}
	older := file("older")
	must.Succeed(t, s.Checkpoint(ctx))
	quiet, renamed, deleted := file("quiet"), file("first"), file("deleted")
	must.Succeed(t, s.Checkpoint(ctx))
	must.Succeed(t, s.RenameFile(ctx, "first", "second"), s.RenameFile(ctx, "older", "newer"), s.DeleteFile(ctx, "deleted"))
	s.life.cancel()
	s.life.background.Wait()
	must.Succeed(t, s.Flush(ctx), s.closeFiles())
	all := filesOf(t, d.fs)
	newest := ""
	for name := range all {
		if strings.HasSuffix(name, ".rows") {
			newest = max(newest, name)
		}
	}
	for _, name := range []string{newest, newest + ".copy"} {
		all[name][BlockLength+10] ^= 1 // in its first table
	}
	d = (&damageable{}).on(t, all)
	if _, err := Repair(ctx, RepairOptions{Options: d.options(o)}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "--to") {
		t.Errorf("in place: %v, want ErrCorrupt that says what to do", err)
	}
	rescued, err := Open(ctx, readOnly(d.options(o)))
	must.Succeed(t, err)
	said := make(map[string]string)
	damage, _ := rescued.Damage()
	for _, one := range damage {
		said[one.What] += one.Error
	}
	must.Succeed(t, rescued.Close())
	r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: "/new"})
	must.Succeed(t, err)
	lost := make(map[string]string)
	for _, one := range r.Lost {
		lost[one.What] += one.Reason
	}
	for what, said := range map[string]map[string]string{"rescue": said, "repair": lost} {
		wantSaid := func(text string, names ...string) {
			t.Helper()
			if !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(said[name], text) }) {
				t.Errorf("%s: %q is not said of any of %q: %q", what, text, names, said)
			}
		}
		isLost := func(v *Volume) string { return fmt.Sprintf("the row of number %d is lost", v.number) }
		wantSaid(isLost(renamed), "file second")
		// The journal can have records that a checkpoint has made superfluous.
		wantSaid(isLost(quiet), "file quiet", fmt.Sprint("volume or file number ", quiet.number))
		wantSaid("names it file newer", "file older")
		if strings.Contains(fmt.Sprint(said), isLost(deleted)) || strings.Contains(fmt.Sprint(said), isLost(older)) {
			t.Errorf("%s: one that is there, or was deleted, is said to be missing: %q", what, said)
		}
	}
}

// TestRepair_LostSnapshots loses the rows of snapshots: each is named, but for one that
// the journal deletes, and one whose row is also in an older run that was not changed.
func TestRepair_LostSnapshots(t *testing.T) {
	ctx := context.Background()
	o := Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{mergeFloor: 1 << 40}}
	d := newDisk()
	s, err := Open(ctx, d.options(o))
	if err != nil {
		t.Fatal(err)
	}
	v := createVolume(t, s, "v", 1<<20)
	snapshot := func() uint64 {
		t.Helper()
		n, err := v.Snapshot(ctx, []Range{{Offset: 4096, Length: 8192}}, nil)
		must.Succeed(t, err)
		defer n.Release()
		return n.ID()
	}
	must.Succeed(t, v.WriteAt(ctx, randomBytes(1, 1<<20), 0))
	older := snapshot()
	must.Succeed(t, s.Checkpoint(ctx))
	lost, deleted := snapshot(), snapshot()
	must.Succeed(t, s.Checkpoint(ctx), s.DeleteSnapshot(ctx, deleted))
	s.life.cancel()
	s.life.background.Wait()
	must.Succeed(t, s.Flush(ctx), s.closeFiles())
	all, newest := filesOf(t, d.fs), ""
	for name := range all {
		if strings.HasSuffix(name, ".rows") {
			newest = max(newest, name)
		}
	}
	for _, name := range []string{newest, newest + ".copy"} {
		all[name][BlockLength+10] ^= 1 // in its first table
	}
	d = (&damageable{}).on(t, all)
	rescued, err := Open(ctx, readOnly(d.options(o)))
	must.Succeed(t, err)
	damage, _ := rescued.Damage()
	must.Succeed(t, rescued.Close())
	r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: "/new"})
	must.Succeed(t, err)
	for what, text := range map[string]string{"rescue": fmt.Sprint(damage), "repair": fmt.Sprint(r.Lost)} {
		for id, want := range map[uint64]bool{older: false, lost: true, deleted: false} {
			if strings.Contains(text, fmt.Sprintf("{snapshot %d ", id)) != want {
				t.Errorf("%s: snapshot %d is named: %v, want %v: %s", what, id, !want, want, text)
			}
		}
	}
}

// TestRepair_LostRecords loses one table of records in both copies: the other records
// are there, in a rescue and after a repair, and what is lost is named.
func TestRepair_LostRecords(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	o := Options{CacheBytes: 4 << 20, DedupUnit: 16 << 10}
	s, err := Open(ctx, d.options(o))
	if err != nil {
		t.Fatal(err)
	}
	createVolume(t, s, "v", 1<<20)
	for i := range 4 { // each is longer than half a table
		if err := s.PutRecords(ctx, Record{Key: fmt.Append(nil, "long", i), Value: randomBytes(uint64(i), 40<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all, hit := filesOf(t, d.fs), 0
	gone := randomBytes(2, 40<<10)[:256]
	for name, content := range all {
		if at := bytes.Index(content, gone); at >= 0 && filepath.Dir(name) == "/store/checkpoints" {
			bad := bytes.Clone(content)
			bad[at] ^= 1
			all[name] = bad
			hit++
		}
	}
	if hit != 2 {
		t.Fatalf("the record is in %d files", hit)
	}
	d = (&damageable{}).on(t, all)
	r, err := Repair(ctx, RepairOptions{Options: d.options(o), To: "/new"})
	if err != nil || r.Records == 0 || !strings.Contains(fmt.Sprint(r.Lost), "rlong2") {
		t.Fatalf("%d records, %+v, %v", r.Records, r.Lost, err)
	}
	wantLostRecordsSaid(t, d.options(o))
	rescued, err := Open(ctx, readOnly(d.options(o)))
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]*Store{"rescue": rescued, "repair": d.openAt(t, "/new")} {
		got := map[string]bool{}
		if err := s.ScanRecords(nil, func(key, _ []byte) error { got[string(key)] = true; return nil }); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if !got["long0"] || got["long2"] {
			t.Errorf("%s: there are %v", what, got)
		}
		if _, err := s.GetRecord([]byte("long2")); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: the lost record: %v", what, err)
		}
		if list, _ := s.Damage(); (len(list) > 0) != (what == "rescue") {
			t.Errorf("%s: damage %+v", what, list)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// wantLostRecordsSaid opens a store whose record long2 is lost: an error says so, and what
// to do.
func wantLostRecordsSaid(t *testing.T, o Options) {
	t.Helper()
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.GetRecord([]byte("long2"))
	for _, err := range []error{err, s.ScanRecords([]byte("long"), func(_, _ []byte) error { return nil })} {
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "rlong2") || !strings.Contains(err.Error(), "odx store repair") {
			t.Errorf("%v, want ErrCorrupt that names the row and what to do", err)
		}
	}
}
