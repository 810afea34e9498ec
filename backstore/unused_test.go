package backstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"odx/backstore/record"
	"odx/internal/kit/must"
)

// firstUnused returns the first record that a repair did not use: the one behind
// the first record of the journal, which is damaged.
func firstUnused(t *testing.T, r Repaired) uint64 {
	t.Helper()
	if len(r.Unused) == 0 {
		t.Fatalf("no change is reported: %+v", r)
	}
	first := r.Unused[0].FirstLSN
	if damaged := fmt.Sprintf("record %d:", first-1); !strings.Contains(fmt.Sprint(r.Lost), damaged) {
		t.Errorf("%q is not reported: %+v", damaged, r.Lost)
	}
	return first
}

func wantUnused(t *testing.T, r Repaired, want ...UnusedChange) {
	t.Helper()
	if r.MoreUnused != 0 || !slices.Equal(r.Unused, want) {
		t.Errorf("%d more than\n%v\nwant\n%v", r.MoreUnused, lines(r.Unused), lines(want))
	}
}

func lines(list []UnusedChange) string {
	var b strings.Builder
	for _, u := range list {
		fmt.Fprintln(&b, u)
	}
	return b.String()
}

// damageFirstRecord flips a bit in the first record of each file of the journal.
func damageFirstRecord(t *testing.T, d *disk) {
	t.Helper()
	for name, content := range files(t, d.fs, "/store") {
		if filepath.Dir(name) == "/store/journal" {
			bad := bytes.Clone(content)
			bad[4096+80] ^= 1
			put(t, d.fs, name, bad)
		}
	}
}

// unusedDisk makes a store with volumes a and b, a file f and a snapshot, lets fn
// change it, ends it as SIGKILL does, and damages the first of the records since:
// that of a volume that was made.
func unusedDisk(t *testing.T, fn func(s *Store, a, b, f, lost *Volume, n *Snapshot)) *disk {
	t.Helper()
	ctx := context.Background()
	d := newDisk()
	s, err := Open(ctx, d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	a, b := createVolume(t, s, "a", 16<<20), createVolume(t, s, "b", 8<<20)
	f, err := s.CreateFile(ctx, "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(ctx, 1<<20), a.WriteAt(ctx, randomBytes(1, 64<<10), 0)); err != nil {
		t.Fatal(err)
	}
	n, err := a.Snapshot(ctx, []Range{{Length: 64 << 10}}, func(uint64) []Record { return nil })
	if err == nil {
		err = s.Checkpoint(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	fn(s, a, b, f, createVolume(t, s, strings.Repeat("lost", 30), 1<<20), n)
	n.Release()
	s.life.cancel()
	s.life.background.Wait()
	if err := errors.Join(s.Flush(ctx), s.closeFiles()); err != nil {
		t.Fatal(err)
	}
	damageFirstRecord(t, d)
	return d
}

// TestRepair_UnusedRecords: what the readable records behind damage change is
// reported, of volumes, files, clones and snapshots, by name, range and record; the
// log of a rescue and a dump say it, too.
func TestRepair_UnusedRecords(t *testing.T) {
	ctx := context.Background()
	var lostNumber, id uint64
	d := unusedDisk(t, func(s *Store, a, b, f, lost *Volume, n *Snapshot) {
		lostNumber = lost.number
		must.Succeed(t, lost.WriteAt(ctx, randomBytes(2, 4096), 8192),
			a.WriteAt(ctx, randomBytes(3, 8192), 1<<20), b.WriteAt(ctx, randomBytes(4, 4096), 0),
			a.WriteAt(ctx, randomBytes(5, 8192), 1<<20+8192), a.WriteAt(ctx, randomBytes(6, 4096), 1<<20-4096),
			b.Unmap(ctx, 4<<20, 1<<20), f.WriteAt(ctx, randomBytes(7, 16<<10), 64<<10))
		c, err := s.CloneVolume(ctx, "a", "c")
		must.Succeed(t, err)
		must.Succeed(t, c.WriteAt(ctx, randomBytes(8, 4096), 4096))
		taken, err := b.Snapshot(ctx, []Range{{Offset: 4096, Length: 8192}, {Offset: 1 << 20, Length: 4096}}, func(made uint64) []Record {
			id = made
			return []Record{{Key: []byte("token"), Value: []byte{1}}}
		})
		must.Succeed(t, err)
		taken.Release()
		if _, err := b.Map(ctx, 2<<20, n, 0, 64<<10); err != nil {
			t.Fatal(err)
		}
		must.Succeed(t, s.RenameFile(ctx, "f", "g"), f.WriteAt(ctx, randomBytes(9, 4096), 0),
			f.Truncate(ctx, 2<<20), s.PutRecords(ctx, Record{Key: []byte("k"), Value: []byte("v")}),
			s.PutRecords(ctx, Record{Key: []byte("l"), Value: []byte("v")}), s.DeleteVolume(ctx, "b"))
	})
	o := d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20})
	dumped := make(map[string]map[string]any)
	err := Dump(ctx, o, []string{"journal"}, func(item DumpItem) error {
		dumped[item.Key], _ = item.Value.(map[string]any)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	log, hook := logtest.NewNullLogger()
	o.Log = log.WithField("test", t.Name())
	r, err := Repair(ctx, RepairOptions{Options: o, To: "/new"})
	if err != nil {
		t.Fatal(err)
	}
	at := firstUnused(t, r)
	wantUnused(t, r,
		UnusedChange{FirstLSN: at, LastLSN: at, Records: 1, Change: Change{Kind: "write", What: fmt.Sprintf("volume or file number %d", lostNumber), Offset: 8192, Length: 4096}},
		UnusedChange{FirstLSN: at + 1, LastLSN: at + 4, Records: 3, Change: Change{Kind: "write", What: "volume a", Offset: 1<<20 - 4096, Length: 20480}},
		UnusedChange{FirstLSN: at + 2, LastLSN: at + 2, Records: 1, Change: Change{Kind: "write", What: "volume b", Length: 4096}},
		UnusedChange{FirstLSN: at + 5, LastLSN: at + 5, Records: 1, Change: Change{Kind: "unmap", What: "volume b", Offset: 4 << 20, Length: 1 << 20}},
		UnusedChange{FirstLSN: at + 6, LastLSN: at + 6, Records: 1, Change: Change{Kind: "write", What: "file f", Offset: 64 << 10, Length: 16 << 10}},
		UnusedChange{FirstLSN: at + 7, LastLSN: at + 7, Records: 1, Change: Change{Kind: "clone volume", What: "volume c", Detail: "of volume a"}},
		UnusedChange{FirstLSN: at + 8, LastLSN: at + 8, Records: 1, Change: Change{Kind: "write", What: "volume c", Offset: 4096, Length: 4096}},
		UnusedChange{FirstLSN: at + 9, LastLSN: at + 9, Records: 1, Change: Change{Kind: "snapshot", What: "volume b", Offset: 4096, Length: 8192, Detail: fmt.Sprintf("snapshot %d", id)}},
		UnusedChange{FirstLSN: at + 9, LastLSN: at + 9, Records: 1, Change: Change{Kind: "snapshot", What: "volume b", Offset: 1 << 20, Length: 4096, Detail: fmt.Sprintf("snapshot %d", id)}},
		UnusedChange{FirstLSN: at + 10, LastLSN: at + 10, Records: 1, Change: Change{Kind: "map", What: "volume b", Offset: 2 << 20, Length: 64 << 10, Detail: "from snapshot 1"}},
		UnusedChange{FirstLSN: at + 11, LastLSN: at + 11, Records: 1, Change: Change{Kind: "replace files", What: "file f", Detail: "to g"}},
		UnusedChange{FirstLSN: at + 12, LastLSN: at + 12, Records: 1, Change: Change{Kind: "write", What: "file g", Length: 4096}},
		UnusedChange{FirstLSN: at + 13, LastLSN: at + 13, Records: 1, Change: Change{Kind: "resize volume", What: "file g", Detail: "to 2097152 bytes"}},
		UnusedChange{FirstLSN: at + 14, LastLSN: at + 15, Records: 2, Change: Change{Kind: "records", What: "records"}},
		UnusedChange{FirstLSN: at + 16, LastLSN: at + 16, Records: 1, Change: Change{Kind: "delete volume", What: "volume b"}})
	var logged []string
	for _, e := range hook.AllEntries() {
		if text, ok := e.Data["change"]; ok {
			logged = append(logged, fmt.Sprint(text, "\n"))
		}
	}
	if got := strings.Join(logged, ""); got != lines(r.Unused) {
		t.Errorf("logged\n%swant\n%s", got, lines(r.Unused))
	}
	for lsn, want := range map[uint64]Change{
		at + 1:  {Kind: "write", What: "volume a", Offset: 1048576, Length: 8192},
		at + 12: {Kind: "write", What: "file g", Length: 4096},
	} {
		got := dumped[fmt.Sprint(lsn)]
		if changes, _ := got["changes"].([]Change); !slices.Equal(changes, []Change{want}) || got["behind_damage"] != true {
			t.Errorf("record %d is dumped as %v, want %v behind damage", lsn, got, want)
		}
	}
	s := d.openAt(t, "/new")
	defer s.Close()
	if list, more := s.Unused(); len(list) > 0 || more > 0 || len(s.catalog.volumes) != 3 {
		t.Errorf("the repaired store has %d volumes and files; unused %v", len(s.catalog.volumes), list)
	}
}

// TestRepair_ManyUnusedRecords: the list is bounded, and says how many more there
// are; ranges that touch one in the list need no room.
func TestRepair_ManyUnusedRecords(t *testing.T) {
	ctx := context.Background()
	d := unusedDisk(t, func(_ *Store, a, b, _, _ *Volume, _ *Snapshot) {
		for i := range int64(1005) {
			if err := a.Unmap(ctx, i*8192, 4096); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(a.Unmap(ctx, 4096, 4096), b.Unmap(ctx, 0, 4096)); err != nil {
			t.Fatal(err)
		}
	})
	r := d.repair(t, "/new")
	if len(r.Unused) != record.MaxUnused || r.MoreUnused != 5 {
		t.Fatalf("%d changes and %d more, want 5", len(r.Unused), r.MoreUnused)
	}
	for at, want := range map[int]Change{
		0:                    {Kind: "unmap", What: "volume a", Length: 12288},
		record.MaxUnused - 1: {Kind: "unmap", What: "volume b", Length: 4096},
	} {
		if got := r.Unused[at].Change; got != want {
			t.Errorf("change %d is %+v, want %+v", at, got, want)
		}
	}
}

// TestUnused_Torn damages what was written last and not flushed, or the data of it. It
// cannot be distinguished from a power cut, so the store opens as it was before, but
// what is lost is said: in the log, and by a repair.
func TestUnused_Torn(t *testing.T) {
	ctx := context.Background()
	for _, damaged := range []string{"record", "data"} {
		t.Run(damaged, func(t *testing.T) {
			d := newDisk()
			s := d.open(t, BlockLength)
			defer s.Close()
			v := createVolume(t, s, "v", 1<<20)
			if err := s.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			lost := randomBytes(1, 256<<10)
			for i := range int64(3) { // too long to go into the record
				if err := v.WriteAt(ctx, lost, i*256<<10); err != nil {
					t.Fatal(err)
				}
				lost = randomBytes(uint64(i)+2, 256<<10)
			}
			if err := s.WriteOut(ctx); err != nil {
				t.Fatal(err)
			}
			d = &disk{fs: d.fs.ProcessClone()}
			damageFirstWrite(t, d, damaged)
			o := d.options(Options{DedupUnit: BlockLength, CacheBytes: 4 << 20})
			r, err := Repair(ctx, RepairOptions{Options: o, To: "/new"})
			if err != nil || len(r.Unused) == 0 || r.LostBytes > 0 {
				t.Fatalf("%+v, %v: want what is not used", r, err)
			}
			last := r.Unused[len(r.Unused)-1].Change
			if last.What != "volume v" || last.Offset+last.Length != 3*256<<10 {
				t.Errorf("not used: %s", lines(r.Unused))
			}
			log, hook := logtest.NewNullLogger()
			o.Log = log.WithField("test", true)
			again, err := Open(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			said := ""
			for _, e := range hook.AllEntries() {
				said += fmt.Sprintln(e.Message, e.Data)
			}
			if !strings.Contains(said, "the journal ends before this record") || !strings.Contains(said, "volume v") {
				t.Errorf("the log does not say what is lost: %s", said)
			}
			if list, _ := again.Damage(); len(list) > 0 {
				t.Errorf("it is no damage: %+v", list)
			}
			got := make([]byte, 3*256<<10)
			if v, err := again.Volume("v"); err != nil || v.ReadAt(ctx, got, 0) != nil || !bytes.Equal(got, make([]byte, len(got))) {
				t.Errorf("it is not as before the damage: %v", err)
			}
		})
	}
}

// damageFirstWrite flips a bit in the record of the first write to volume v, or in its
// data.
func damageFirstWrite(t *testing.T, d *disk, what string) {
	t.Helper()
	find, in := randomBytes(1, 256<<10)[:BlockLength], "/store/segments"
	if what == "record" {
		// The fingerprint in the record of the first extent: what follows its header.
		in = "/store/journal"
		find = nil
	}
	for name, content := range files(t, d.fs, "/store") {
		if filepath.Dir(name) != in {
			continue
		}
		at := bytes.Index(content, find)
		if find == nil {
			at = longRecord(content)
		}
		if at >= 0 {
			bad := bytes.Clone(content)
			bad[at+100] ^= 1
			put(t, d.fs, name, bad)
			return
		}
	}
	t.Fatalf("no file has the %s", what)
}

// longRecord returns the offset of the first record of a journal file with the length
// of a write of 64 extents, -1 if there is none.
func longRecord(content []byte) int {
	for at := 4096; at+24 < len(content); at += 8 {
		if n := binary.LittleEndian.Uint32(content[at+4:]); n > 64*36 && n < 64*40 {
			return at
		}
	}
	return -1
}
