package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// TestOpen_LongSpare: a file that has the name of a spare file, and is much longer than a
// file of the journal, gets no blocks and is not used.
func TestOpen_LongSpare(t *testing.T) {
	o := Options{FS: vfs.OS(), Dir: t.TempDir(), FileBytes: 1 << 20}
	must.Succeed(t, Create(o))
	for _, base := range []string{sparePart + "7" + suffix, "00000000000000ff" + suffix} {
		name := filepath.Join(o.Dir, base)
		must.Succeed(t, os.WriteFile(name, nil, 0o600), os.Truncate(name, 512<<20))
	}
	j, _ := openAt(t, o)
	add(t, j)
	must.Succeed(t, j.Close())
	for _, base := range []string{sparePart + "7" + suffix, "00000000000000ff" + suffix} {
		if _, err := os.Stat(filepath.Join(o.Dir, base)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want fs.ErrNotExist", base, err)
		}
	}
	names, err := os.ReadDir(o.Dir)
	must.Succeed(t, err)
	for _, name := range names {
		if info, err := name.Info(); err != nil || info.Size() > 4<<20 {
			t.Errorf("%s has %d bytes, %v", name.Name(), info.Size(), err)
		}
	}
}

// TestJournal_SpareTruncated: a spare file that was truncated or removed while the
// journal has it is not used.
func TestJournal_SpareTruncated(t *testing.T) {
	for name, damage := range map[string]func(m *vfs.Mem, name string) error{
		"removed": func(m *vfs.Mem, name string) error { return m.Remove(name) },
		"truncated": func(m *vfs.Mem, name string) error {
			f, err := m.Open(name)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(0), f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := vfs.NewMem()
			o := small(m)
			j, _ := openAt(t, o)
			fill(t, m, j)
			j.acquire()
			victim, kept := j.spares[0].name, j.spares[1].name
			j.release()
			must.Succeed(t, damage(m, victim))
			m.SetCapacity(m.Used())
			first, err := j.Rotate()
			must.Succeed(t, err)
			last := add(t, j)
			must.Succeed(t, j.Commit(ctx, last))
			if got := names(t, m); slices.Contains(got, filepath.Base(kept)) || slices.Contains(got, filepath.Base(victim)) {
				t.Errorf("files %v: want %s used, and %s removed", got, kept, victim)
			}
			must.Succeed(t, j.Truncate(first))
			must.Succeed(t, j.Close())
			o.First = first
			if _, got := openAt(t, o); got != last {
				t.Errorf("replayed up to %d, want %d", got, last)
			}
		})
	}
}

// TestJournal_CurrentFileLost: the file that is written to is removed, or a directory
// has its name. The journal reports that once and goes on in another file, and after
// the next checkpoint nothing is missing. Before it, Open reports the lost records.
func TestJournal_CurrentFileLost(t *testing.T) {
	for _, replaced := range []string{"", "/directory"} {
		o := Options{FS: vfs.OS(), Dir: t.TempDir(), FileBytes: 64 << 10}
		must.Succeed(t, Create(o))
		j, _ := openAt(t, o)
		must.Succeed(t, j.Commit(ctx, add(t, j)))
		j.acquire()
		name := j.files[len(j.files)-1].name
		j.release()
		must.Succeed(t, os.Remove(name))
		if replaced != "" {
			must.Succeed(t, os.MkdirAll(name+replaced, 0o700))
		}
		first, err := j.Rotate()
		must.Succeed(t, err)
		last := add(t, j)
		if err := j.Commit(ctx, last); !missing(err) {
			t.Fatalf("commit after the file was lost: %v", err)
		}
		must.Succeed(t, j.Commit(ctx, last))
		var damage *DamageError
		if _, err := Open(ctx, o, ignore); !errors.As(err, &damage) {
			t.Errorf("open without the lost records: %v", err)
		}
		must.Succeed(t, j.Truncate(first))
		must.Succeed(t, j.Commit(ctx, add(t, j)))
		must.Succeed(t, j.Close())
		o.First = first
		if _, got := openAt(t, o); got != last+1 {
			t.Errorf("replayed up to %d, want %d", got, last+1)
		}
	}
}
