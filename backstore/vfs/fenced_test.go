package vfs

import (
	"errors"
	"path/filepath"
	"testing"

	"odx/internal/kit/must"
	"odx/owner"
)

// Nothing is changed or read by who is not the owner.
func TestFenced(t *testing.T) {
	everyFS(t, func(t *testing.T, base FS, dir string) {
		var lost error
		fsys, name := Fenced(base, func() error { return lost }), filepath.Join(dir, "f")
		f := create(t, fsys, name, "before")
		must.Succeed(t, errors.Join(f.Sync(), fsys.SyncDir(dir)))
		if n := testing.AllocsPerRun(100, func() { _, _ = f.WriteAt([]byte("b"), 0) }); n > testing.AllocsPerRun(100, func() { _, _ = f.(*fencedFile).file.WriteAt([]byte("b"), 0) }) {
			t.Errorf("%v allocations", n)
		}
		lost = owner.ErrLost
		_, created := fsys.Create(name + "2")
		_, opened := fsys.Open(name)
		_, toRead := fsys.(Reader).OpenToRead(name)
		_, listed := fsys.List(dir)
		_, read := f.ReadAt(make([]byte, 1), 0)
		_, written := f.WriteAt([]byte("after"), 0)
		_, size := f.Size()
		for what, err := range map[string]error{
			"create": created, "open": opened, "open to read": toRead, "list": listed, "read": read, "write": written, "size": size,
			"remove": fsys.Remove(name), "rename": fsys.Rename(name, name+"2"), "mkdir": fsys.MkdirAll(name + "3"),
			"sync of a directory": fsys.SyncDir(dir), "hold names": fsys.(NameHolder).HoldNames(dir), "sync": f.Sync(),
			"write back": f.WriteBack(0, 1), "truncate": f.Truncate(0), "allocate": f.Allocate(1 << 20),
		} {
			if _, holds := base.(NameHolder); what != "hold names" || holds {
				wantErr(t, what, err, owner.ErrLost)
			}
		}
		must.Succeed(t, f.Close())
		if got := content(t, base, name); got != "before" {
			t.Errorf("%q", got)
		}
	})
}
