package backstore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"odx/backstore/layout"
	"odx/backstore/vfs"
	"odx/internal/kit/logs"
	"odx/internal/kit/sample"
)

// denied is a file system on which this process may not do some things.
type denied struct {
	vfs.FS
	open   func(name string) error // why a file may not be opened
	toRead bool                    // it may be opened for reading all the same
	change func(dir string) error  // why nothing may be made in a directory
}

func (d denied) Open(name string) (vfs.File, error) {
	if d.open != nil {
		if err := d.open(name); err != nil {
			return nil, err
		}
	}
	return d.FS.Open(name)
}

func (d denied) OpenToRead(name string) (vfs.File, error) {
	if d.toRead {
		return d.FS.Open(name)
	}
	return d.Open(name)
}

func (d denied) MayChange(dir string) error {
	if d.change == nil {
		return nil
	}
	return d.change(dir)
}

// noAccess is the error of opening what has one of these suffixes.
func noAccess(suffixes ...string) func(string) error {
	return func(name string) error {
		for _, suffix := range suffixes {
			if strings.HasSuffix(name, suffix) {
				return &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
			}
		}
		return nil
	}
}

var repairOptions = Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20, tuning: tuning{segmentBlocks: 65}}

// TestUnreadableSegment: a segment that may not be opened is named when the store is
// opened, with the user and what to do, and its data is there again with the
// permission.
func TestUnreadableSegment(t *testing.T) {
	d := newDisk()
	want := repairDisk(t, d.options(repairOptions))
	for _, readOnly := range []bool{false, true} {
		o := d.options(repairOptions)
		o.FS = denied{FS: d.fs, open: noAccess("00000001.seg", "00000002.seg")}
		o.ReadOnly = readOnly
		s, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		s.lookAtSegments(context.Background())
		list, _ := s.Damage()
		if len(list) != 1 || list[0].What != "/store/segments/00000001.seg and 1 segments more" {
			t.Fatalf("damage: %+v", list)
		}
		for _, text := range []string{whoami(), "chown", "permission denied"} {
			if !strings.Contains(list[0].Error, text) {
				t.Errorf("%q is not in %q", text, list[0].Error)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err := Open(context.Background(), d.options(repairOptions))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, lost := readable(t, s); len(lost) > 0 || !maps.Equal(got, want) {
		t.Errorf("with the permission: %v is lost", lost)
	}
}

// TestSegmentThatMayOnlyBeRead is read as any other.
func TestSegmentThatMayOnlyBeRead(t *testing.T) {
	d := newDisk()
	want := repairDisk(t, d.options(repairOptions))
	o := d.options(repairOptions)
	o.FS = denied{FS: d.fs, open: noAccess(".seg"), toRead: true}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.lookAtSegments(context.Background())
	if got, lost := readable(t, s); len(lost) > 0 || !maps.Equal(got, want) {
		t.Errorf("%v is lost", lost)
	}
	// What lies in them can be given up.
	if err := errors.Join(s.DeleteVolume(context.Background(), "v"), s.DeleteVolume(context.Background(), "clone")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.reapAll(context.Background()), s.Clean(context.Background()), s.Checkpoint(context.Background())); err != nil {
		t.Error(err)
	}
}

// TestRepair_MayRead: no file of a store is lost because it may not be read.
func TestRepair_MayRead(t *testing.T) {
	d := newDisk()
	repairDisk(t, d.options(repairOptions))
	before := files(t, d.fs, "/store")
	for name := range before {
		if filepath.Base(name) == layout.LockName || strings.Contains(filepath.Base(name), "spare") {
			continue
		}
		for _, to := range []string{"", "/new"} {
			o := d.options(repairOptions)
			o.FS = denied{FS: d.fs, open: noAccess(name)}
			r, err := Repair(context.Background(), RepairOptions{Options: o, To: to})
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), whoami()) {
				t.Errorf("%s, repair to %q: %+v, %v, want an error that names the file and the user", name, to, r, err)
			}
		}
	}
	after := files(t, d.fs, "/store")
	if !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("a refused repair has changed files")
	}
}

// TestOpen_Permission: a file of the journal or a directory that may not be used is
// named before anything changes, and no repair is advised.
func TestOpen_Permission(t *testing.T) {
	d := newDisk()
	repairDisk(t, d.options(repairOptions))
	before := files(t, d.fs, "/store")
	for _, tc := range []struct {
		what string
		fs   denied
		in   string
	}{
		{"the directory", denied{change: noAccess("/store")}, "/store:"},
		{"segments", denied{change: noAccess("segments")}, "/store/segments:"},
		{"a file system that is read-only", denied{change: func(dir string) error {
			return &fs.PathError{Op: "access", Path: dir, Err: syscall.EROFS}
		}}, "serve --rescue"},
		{"the journal", denied{open: noAccess(".journal")}, ".journal"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			o := d.options(repairOptions)
			tc.fs.FS = d.fs
			o.FS = tc.fs
			s, err := Open(context.Background(), o)
			if err == nil {
				s.Close()
				t.Fatal("it opens")
			}
			text := err.Error()
			if !strings.Contains(text, tc.in) || errors.Is(err, fs.ErrPermission) && !strings.Contains(text, whoami()) || strings.Contains(text, "odx store repair") {
				t.Error(text)
			}
		})
	}
	if after := files(t, d.fs, "/store"); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("what was refused has changed files")
	}
}

// TestOpen_DanglingLinks: a directory that is a link to nothing is named as that.
func TestOpen_DanglingLinks(t *testing.T) {
	for _, name := range []string{layout.SegmentDir, layout.JournalDir, layout.CheckpointDir, layout.ReserveDir} {
		dir := filepath.Join(t.TempDir(), "store")
		o := repairOptions
		o.Dir, o.Log = dir, logs.Discard()
		repairDisk(t, o)
		away := dir + ".away"
		if err := errors.Join(os.Rename(filepath.Join(dir, name), away), os.Symlink(dir+".nothing", filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		for _, readOnly := range []bool{false, true} {
			o.ReadOnly = readOnly
			_, err := Open(context.Background(), o)
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)+" is a symbolic link") {
				t.Errorf("%s, read only %t: %v", name, readOnly, err)
			}
		}
		o.ReadOnly = false
		if _, err := Repair(context.Background(), RepairOptions{Options: o, To: dir + ".to"}); err == nil || !strings.Contains(err.Error(), "is a symbolic link") {
			t.Errorf("repair with %s: %v", name, err)
		}
	}
}

// TestFilesThatCannotBeRemoved: what is dead and cannot be removed is noted once, and
// left; everything else goes on, and it is removed when that is possible.
func TestFilesThatCannotBeRemoved(t *testing.T) {
	ctx := context.Background()
	for _, cause := range []error{syscall.EPERM, syscall.ENOTEMPTY, syscall.EIO} {
		t.Run(cause.Error(), func(t *testing.T) {
			d := newDisk()
			o := d.options(repairOptions)
			log, logged := test.NewNullLogger()
			o.Log = logrus.NewEntry(log)
			s, err := Open(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			v := createVolume(t, s, "v", 4<<20)
			for i := range 4 {
				if err := errors.Join(v.WriteAt(ctx, randomBytes(uint64(i), 128<<10), int64(i)<<18), s.Checkpoint(ctx)); err != nil {
					t.Fatal(err)
				}
			}
			d.fs.SetHook(func(kind vfs.OpKind, name string) error {
				if (kind == vfs.OpRemove || kind == vfs.OpRename) && (strings.HasSuffix(name, ".seg") || strings.HasSuffix(name, ".rows")) {
					return &fs.PathError{Op: "remove", Path: name, Err: cause}
				}
				return nil
			})
			if err := errors.Join(s.DeleteVolume(ctx, "v"), s.reapAll(ctx)); err != nil {
				t.Fatal(err)
			}
			s.parts.segments.Seal()
			d.fs.SetHook(func(kind vfs.OpKind, name string) error {
				if (kind == vfs.OpRemove || kind == vfs.OpRename) && strings.HasSuffix(name, ".seg") {
					return &fs.PathError{Op: "remove", Path: name, Err: cause}
				}
				return nil
			})
			for range 3 {
				if err := s.Checkpoint(ctx); err != nil {
					t.Fatal(err)
				}
				if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
					t.Fatal(findings, err)
				}
			}
			list, _ := s.Damage()
			if len(list) == 0 || !strings.HasSuffix(list[0].What, ".seg") || list[0].Times < 3 || !strings.Contains(list[0].Error, cause.Error()) {
				t.Errorf("damage: %+v", list)
			}
			lines := 0
			for _, e := range logged.AllEntries() {
				if e.Level <= logrus.ErrorLevel && e.Data["what"] == list[0].What {
					lines++
				}
			}
			if lines != 1 {
				t.Errorf("logged %d times, want once", lines)
			}
			d.fs.SetHook(nil)
			if err := s.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
			if list, _ := s.Damage(); len(list) != 0 {
				t.Errorf("after they were removed: %+v", list)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForeignSegmentStays: a file of another store that has the name of a dead segment
// is not removed.
func TestForeignSegmentStays(t *testing.T) {
	ctx := context.Background()
	m := makeDamageable(t)
	other := makeDamageable(t).files
	name := "/store/segments/00000001.seg"
	files := maps.Clone(m.files)
	files[name] = other[name]
	d := m.on(t, files)
	s, err := Open(ctx, m.options(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, volume := range []string{"a", "b", "c"} {
		if err := s.DeleteVolume(ctx, volume); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range snapshotIDs(s) {
		if err := s.DeleteSnapshot(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.reapAll(ctx), s.Clean(ctx), s.Checkpoint(ctx), s.Close()); err != nil {
		t.Fatal(err)
	}
	if after := filesOf(t, d.fs); !bytes.Equal(after[name], other[name]) {
		t.Error("it is gone")
	}
}

// TestJournalFileThatCannotBeOpened: with every name that a journal file can have,
// below and above those that are needed, a directory is there, or a link to nothing.
// It costs nothing, and is left alone.
func TestJournalFileThatCannotBeOpened(t *testing.T) {
	obstacles := map[string]func(name string) error{
		"directory": func(name string) error { return os.MkdirAll(filepath.Join(name, "x"), 0o700) },
		"link":      func(name string) error { return os.Symlink(name+".nothing", name) },
	}
	for what, put := range obstacles {
		for i, base := range []string{"0000000000000001.journal", "spare0.journal", "0000000000000fff.journal", "spare1.journal"} {
			if (i+len(what))%sample.Size(4, 2, 1) > 0 {
				continue
			}
			t.Run(what+" "+base, func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				dir := filepath.Join(t.TempDir(), "store")
				o := repairOptions
				o.Dir, o.Log = dir, logs.Discard()
				want := repairDisk(t, o)
				name := filepath.Join(dir, layout.JournalDir, base)
				if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				if err := put(name); err != nil {
					t.Fatal(err)
				}
				rescue := o
				rescue.ReadOnly = true
				for _, o := range []Options{rescue, o, o} {
					s, err := Open(ctx, o)
					if err != nil {
						t.Fatal(err)
					}
					if got, lost := readable(t, s); len(lost) > 0 || !maps.Equal(got, want) {
						t.Errorf("read only %t: %v is lost", o.ReadOnly, lost)
					}
					if !o.ReadOnly {
						if err := errors.Join(s.Checkpoint(ctx), s.parts.journal.Ready()); err != nil {
							t.Error(err)
						}
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
				r, err := Repair(ctx, RepairOptions{Options: o, To: dir + ".to"})
				if err != nil || r.LostBytes > 0 {
					t.Errorf("repair: %+v, %v", r, err)
				}
				if _, err := os.Lstat(name); err != nil {
					t.Errorf("it was not left alone: %v", err)
				}
			})
		}
	}
}

// TestSegmentThatIsNoFile: what has the name of a segment and is no file is a read error
// with the offset, like any data that cannot be read; what lies elsewhere is read.
func TestSegmentThatIsNoFile(t *testing.T) {
	for what, put := range map[string]func(name string) error{
		"directory":       func(name string) error { return os.Mkdir(name, 0o700) },
		"pipe":            func(name string) error { return syscall.Mkfifo(name, 0o600) },
		"link to itself":  func(name string) error { return os.Symlink(filepath.Base(name), name) },
		"link to nothing": func(name string) error { return os.Symlink("nothing", name) },
	} {
		t.Run(what, func(t *testing.T) {
			o := newDisk().options(Options{CacheBytes: 4 << 20})
			o.FS, o.Dir = vfs.OS(), t.TempDir()
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			v := createVolume(t, s, "v", 1<<20)
			if err := errors.Join(v.WriteAt(t.Context(), randomBytes(1, BlockLength), 8192), s.Close()); err != nil {
				t.Fatal(err)
			}
			names, err := filepath.Glob(filepath.Join(o.Dir, layout.SegmentDir, "*.seg"))
			if err != nil || len(names) != 1 {
				t.Fatal(names, err)
			}
			if err := errors.Join(os.Remove(names[0]), put(names[0])); err != nil {
				t.Fatal(err)
			}
			for _, readOnly := range []bool{true, false} {
				o.ReadOnly = readOnly
				s, err := Open(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				v, err := s.Volume("v")
				if err != nil {
					t.Fatal(err)
				}
				err = v.ReadAt(t.Context(), make([]byte, 1<<20), 0)
				if corrupt, ok := errors.AsType[*CorruptError](err); !ok || corrupt.Offset != 8192 {
					t.Errorf("read: %v, want damage at byte 8192", err)
				}
				if list, _ := s.Damage(); len(list) == 0 {
					t.Error("no damage is listed")
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
