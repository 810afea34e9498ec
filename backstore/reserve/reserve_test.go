package reserve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

const fileBytes = 64 << 10

func open(t testing.TB, m *vfs.Mem) *Pool {
	t.Helper()
	p, err := Open(Options{FS: m, Dir: "/reserve", Bytes: fileBytes, Files: 2})
	must.Succeed(t, err)
	return p
}

// write creates a file like a checkpoint.
func write(p *Pool, m *vfs.Mem, name string, data []byte) error {
	f, kept, err := p.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	if !kept {
		err = f.Truncate(int64(len(data)))
	}
	return errors.Join(err, f.Sync(), m.SyncDir("/"))
}

func read(t testing.TB, m *vfs.Mem, name string) []byte {
	t.Helper()
	f, err := m.Open(name)
	must.Succeed(t, err)
	defer f.Close()
	size, err := f.Size()
	must.Succeed(t, err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

// TestPool_Create: without a free block Create returns files of the reserve, until none
// is left.
func TestPool_Create(t *testing.T) {
	t.Run("full disk", func(t *testing.T) {
		m := vfs.NewMem()
		p := open(t, m)
		must.Succeed(t, p.Fill())
		m.SetCapacity(m.Used())
		for i := range 2 {
			name := fmt.Sprintf("/file%d", i)
			data := bytes.Repeat([]byte{byte(i + 1)}, fileBytes)
			must.Succeed(t, write(p, m, name, data))
			if got := read(t, m, name); !bytes.Equal(got, data) {
				t.Errorf("%s has %d other bytes", name, len(got))
			}
		}
		if err := write(p, m, "/file2", []byte{1}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a third file: %v, want ENOSPC", err)
		}
		if err := p.Fill(); !errors.Is(err, syscall.ENOSPC) || p.Full() {
			t.Errorf("fill: %v, full is %v, want ENOSPC", err, p.Full())
		}
		m.SetCapacity(0)
		must.Succeed(t, p.Fill())
		if !p.Full() || p.Bytes() != 2*fileBytes {
			t.Errorf("full is %v, %d bytes", p.Full(), p.Bytes())
		}
	})
	t.Run("room", func(t *testing.T) {
		m := vfs.NewMem()
		p := open(t, m)
		must.Succeed(t, p.Fill())
		must.Succeed(t, write(p, m, "/file", []byte("data")))
		if !p.Full() {
			t.Error("the reserve was used with free space on the disk")
		}
	})
}

// TestPool_Give: on a full disk files are written one after the other indefinitely,
// while another program takes freed blocks.
func TestPool_Give(t *testing.T) {
	m := vfs.NewMem()
	p := open(t, m)
	must.Succeed(t, p.Fill())
	m.SetTaken(true)
	m.SetCapacity(m.Used())
	rng := rand.New(rand.NewPCG(1, 1))
	must.Succeed(t, write(p, m, "/file0", []byte{0}))
	for i := 1; i < 50; i++ {
		name, last := fmt.Sprintf("/file%d", i), fmt.Sprintf("/file%d", i-1)
		data := bytes.Repeat([]byte{byte(i)}, 1+rng.IntN(fileBytes))
		must.Succeed(t, write(p, m, name, data))
		if got := read(t, m, name); !bytes.HasPrefix(got, data) {
			t.Fatalf("%s has %d bytes, want %d", name, len(got), len(data))
		}
		p.Lent(1)
		must.Succeed(t, p.Give(last))
		must.Succeed(t, p.Fill())
		if !p.Full() || p.Len() != 1 {
			t.Fatalf("after file %d, %d files are left", i, p.Len())
		}
	}
	p.Lent(0)
	must.Succeed(t, p.Give("/file49"))
	if !p.Full() {
		t.Error("a file is missing")
	}
	if p = open(t, m); !p.Full() {
		t.Error("a file is missing after a restart")
	}
	f, err := m.Create("/other")
	must.Succeed(t, err)
	must.Succeed(t, f.Close())
	must.Succeed(t, p.Give("/other"))
	if names, err := m.List("/reserve"); err != nil || len(names) != 2 {
		t.Errorf("the reserve is %v, %v", names, err)
	}
}

// TestPool_GiveLonger: a file that is longer than those of the reserve takes writes up
// to its end, whether it had holes or not, after a restart too.
func TestPool_GiveLonger(t *testing.T) {
	const size = 4 * fileBytes
	for name, tt := range map[string]struct {
		written []int64 // pieces of 4 KiB
		restart bool
		least   int64 // that the file has then
	}{
		"whole":                     {written: pieces(0, size), least: size},
		"hole beyond the reserve":   {written: append(pieces(0, 2*fileBytes), pieces(3*fileBytes, size)...), least: fileBytes},
		"hole at its end":           {written: pieces(0, 3*fileBytes), least: fileBytes},
		"whole, restart":            {written: pieces(0, size), restart: true, least: size},
		"hole in the kept, restart": {written: pieces(0, 3*fileBytes), restart: true, least: fileBytes},
	} {
		t.Run(name, func(t *testing.T) {
			m := vfs.NewMem()
			p := open(t, m)
			f, err := m.Create("/long")
			must.Succeed(t, err)
			must.Succeed(t, f.Truncate(size))
			for _, at := range tt.written {
				_, err := f.WriteAt(make([]byte, 4096), at)
				must.Succeed(t, err)
			}
			must.Succeed(t, f.Close())
			m.SetTaken(true)
			m.SetCapacity(m.Used())
			if tt.restart { // as a program without this rule has left it
				must.Succeed(t, m.MkdirAll("/reserve"))
				must.Succeed(t, m.Rename("/long", "/reserve/0000000000000001"+suffix))
				p = open(t, m)
				_ = p.Fill() // there is no room for a second
			} else {
				must.Succeed(t, p.Give("/long"))
			}
			f, kept, err := p.Create("/file")
			must.Succeed(t, err)
			if !kept {
				t.Error("it is not out of the reserve")
			}
			got, err := f.Size()
			must.Succeed(t, err)
			if got < tt.least {
				t.Errorf("it has %d bytes, want %d", got, tt.least)
			}
			if _, err := f.WriteAt(make([]byte, got), 0); err != nil {
				t.Errorf("write of all of its %d bytes: %v", got, err)
			}
			must.Succeed(t, f.Close())
		})
	}
}

// pieces returns where the pieces of 4 KiB from one offset to another begin.
func pieces(from, to int64) (at []int64) {
	for ; from < to; from += 4096 {
		at = append(at, from)
	}
	return at
}

// TestPool_PowerCut: after a power cut a file with its name has its blocks.
func TestPool_PowerCut(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		m := vfs.NewMem()
		var cut *vfs.Mem
		count, at := 0, rng.IntN(12)
		m.SetHook(func(kind vfs.OpKind, _ string) error {
			if kind.Changes() {
				if count == at {
					cut = m.CrashClone(rng)
				}
				count++
			}
			return nil
		})
		p := open(t, m)
		must.Succeed(t, p.Fill())
		m.SetHook(nil)
		if cut == nil {
			continue
		}
		p = open(t, cut)
		names, err := cut.List("/reserve")
		if err != nil {
			continue // the directory does not exist yet
		}
		whole := 0
		for _, name := range names {
			if strings.HasSuffix(name, suffix) {
				whole++
			}
		}
		cut.SetCapacity(cut.Used())
		for i := range whole {
			must.Succeed(t, write(p, cut, fmt.Sprintf("/file%d", i), make([]byte, fileBytes)))
		}
	}
}

// TestPool_Names: files that have names of the reserve by chance make no file of it replace
// another one, and odd names are left alone.
func TestPool_Names(t *testing.T) {
	m := vfs.NewMem()
	must.Succeed(t, m.MkdirAll("/reserve"))
	for _, name := range []string{"0000000000000000", "0000000000000001", "fffffffffffffffe", "ffffffffffffffff", "1", "000000000000000A"} {
		f, err := m.Create("/reserve/" + name + suffix)
		must.Succeed(t, err, f.Close())
	}
	must.Succeed(t, m.MkdirAll("/reserve/new/directory"))
	p, err := Open(Options{FS: m, Dir: "/reserve", Bytes: fileBytes, Files: 4})
	must.Succeed(t, err, p.Fill())
	must.Succeed(t, m.Remove("/reserve/"+fileName(0)), m.Remove("/reserve/"+fileName(1)))
	p, err = Open(Options{FS: m, Dir: "/reserve", Bytes: fileBytes, Files: 4})
	must.Succeed(t, err, p.Fill())
	m.SetCapacity(m.Used())
	for range 3 {
		for i := range 4 {
			must.Succeed(t, write(p, m, fmt.Sprint("/file", i), bytes.Repeat([]byte{1}, fileBytes)))
		}
		for i := range 4 {
			must.Succeed(t, p.Give(fmt.Sprint("/file", i)))
		}
	}
	for _, name := range []string{"1", "000000000000000A"} {
		if n := len(read(t, m, "/reserve/"+name+suffix)); n > 0 {
			t.Errorf("%s has %d bytes", name, n)
		}
	}
}

// TestPool_CreateBeforeFill: a file that Open found gets its blocks before it is used, and
// one that cannot get them is not used.
func TestPool_CreateBeforeFill(t *testing.T) {
	m := vfs.NewMem()
	must.Succeed(t, open(t, m).Fill())
	f, err := m.Create("/reserve/" + fileName(100))
	must.Succeed(t, err, f.Close())
	m.SetCapacity(m.Used())
	must.Succeed(t, write(open(t, m), m, "/file", bytes.Repeat([]byte{1}, fileBytes)))
}

// TestPool_LongFile: a file that is much longer than those of the reserve is cut, and takes
// no blocks.
func TestPool_LongFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, fileName(1))
	must.Succeed(t, os.WriteFile(name, nil, 0o600), os.Truncate(name, 512<<20))
	p, err := Open(Options{FS: vfs.OS(), Dir: dir, Bytes: fileBytes, Files: 2})
	must.Succeed(t, err, p.Fill())
	info, err := os.Stat(name)
	must.Succeed(t, err)
	if info.Size() != fileBytes {
		t.Errorf("it has %d bytes, want %d", info.Size(), fileBytes)
	}
}
