package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
