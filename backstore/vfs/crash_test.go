package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"odx/internal/kit/must"
	"odx/owner"
)

// states returns the sorted, distinct results of look for many crash clones.
func states(m *Mem, look func(clone *Mem) string) []string {
	seen := map[string]bool{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		seen[look(m.CrashClone(rng))] = true
	}
	var all []string
	for s := range seen {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

func wantStates(t *testing.T, m *Mem, look func(clone *Mem) string, want ...string) {
	t.Helper()
	if got := states(m, look); !slices.Equal(got, want) {
		t.Errorf("states after a power failure:\n got %q\nwant %q", got, want)
	}
}

// runs returns the content of a file as its bytes, without run lengths in sectors: "a",
// "ab", …
func runs(t *testing.T, name string) func(*Mem) string {
	return func(m *Mem) string {
		f, err := m.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return "missing"
		}
		must.Succeed(t, err)
		f.Close()
		var b strings.Builder
		s := content(t, m, name)
		for i := 0; i < len(s); i += sectorLength {
			sector := s[i:min(len(s), i+sectorLength)]
			if sector != strings.Repeat(sector[:1], len(sector)) {
				return "torn sector"
			}
			b.WriteString(strings.ReplaceAll(sector[:1], "\x00", "0"))
		}
		return b.String()
	}
}

func sector(c byte) []byte { return bytes.Repeat([]byte{c}, sectorLength) }

func write(t *testing.T, f File, p []byte, off int64) {
	t.Helper()
	_, err := f.WriteAt(p, off)
	must.Succeed(t, err)
}

func TestCrashClone_Synced(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", string(sector('a')))
	must.Succeed(t, f.Sync())
	must.Succeed(t, m.SyncDir("."))
	wantStates(t, m, runs(t, "f"), "a")
}

func TestCrashClone_Sectors(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", strings.Repeat("a", 2*sectorLength))
	must.Succeed(t, f.Sync())
	must.Succeed(t, m.SyncDir("."))
	write(t, f, bytes.Repeat([]byte{'b'}, 2*sectorLength), 0)
	wantStates(t, m, runs(t, "f"), "aa", "ab", "ba", "bb")
}

func TestCrashClone_SectorHistory(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", string(sector('a')))
	must.Succeed(t, f.Sync())
	must.Succeed(t, m.SyncDir("."))
	write(t, f, sector('b'), 0)
	write(t, f, sector('c')[:256], 0)
	write(t, f, sector('c')[256:], 256)
	// "torn sector" is c over b; the sector never had c over a.
	wantStates(t, m, runs(t, "f"), "a", "b", "c", "torn sector")
	wantStates(t, m, func(m *Mem) string {
		s := content(t, m, "f")
		return fmt.Sprint(strings.HasPrefix(s, "c") && strings.HasSuffix(s, "a"))
	}, "false")
}

func TestCrashClone_Size(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", string(sector('a')))
	must.Succeed(t, f.Sync())
	must.Succeed(t, m.SyncDir("."))
	write(t, f, sector('b'), sectorLength)
	wantStates(t, m, runs(t, "f"), "a", "a0", "ab")
	must.Succeed(t, f.Sync())
	must.Succeed(t, f.Truncate(0))
	wantStates(t, m, runs(t, "f"), "", "00", "0b", "a0", "ab")
}

func TestCrashClone_Names(t *testing.T) {
	m := NewMem()
	must.Succeed(t, m.MkdirAll("/d"))
	names := func(m *Mem) string {
		l, err := m.List("/d")
		must.Succeed(t, err)
		return strings.Join(l, " ")
	}
	must.Succeed(t, create(t, m, "/d/a", "").Sync())
	must.Succeed(t, create(t, m, "/d/b", "").Sync())
	wantStates(t, m, names, "", "a", "a b", "b")
	must.Succeed(t, m.SyncDir("/d"))
	wantStates(t, m, names, "a b")
	must.Succeed(t, m.Remove("/d/a"))
	wantStates(t, m, names, "a b", "b")
	must.Succeed(t, m.SyncDir("/d"))
	must.Succeed(t, m.Rename("/d/b", "/d/c"))
	wantStates(t, m, names, "b", "c")
	must.Succeed(t, m.Rename("/d/c", "/d/e"))
	wantStates(t, m, names, "b", "c", "e")
	must.Succeed(t, m.SyncDir("/d"))
	wantStates(t, m, names, "e")
}

func TestCrashClone_Removed(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", string(sector('a')))
	must.Succeed(t, f.Sync())
	must.Succeed(t, m.SyncDir("."))
	must.Succeed(t, m.Remove("f"))
	wantStates(t, m, runs(t, "f"), "a", "missing")
}

// A kernel may drop dirty pages after a write error and let the next fdatasync succeed.
func TestCrashClone_FailedSync(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", string(sector('a'))+string(sector('a'))+string(sector('a')))
	must.Succeed(t, f.Sync())
	must.Succeed(t, m.SyncDir("."))
	write(t, f, sector('b'), 0)
	write(t, f, sector('b'), sectorLength)
	m.SetHook(func(kind OpKind, _ string) error {
		if kind == OpSync {
			return syscall.EIO
		}
		return nil
	})
	wantErr(t, "sync", f.Sync(), syscall.EIO)
	m.SetHook(nil)
	write(t, f, sector('c'), sectorLength)
	write(t, f, sector('c'), 2*sectorLength)
	must.Succeed(t, f.Sync())
	wantStates(t, m, runs(t, "f"), "acc", "bcc")
	write(t, f, sector('d'), 0)
	must.Succeed(t, f.Sync())
	wantStates(t, m, runs(t, "f"), "dcc")
}

func TestMem_Hook(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", "before")
	fail := map[OpKind]error{}
	m.SetHook(func(kind OpKind, _ string) error { return fail[kind] })
	fail[OpWrite] = &ShortWrite{N: 2, Err: syscall.ENOSPC}
	n, err := f.WriteAt([]byte("AFTER"), 0)
	if n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("short write: %d, %v", n, err)
	}
	fail[OpCreate] = syscall.ENOSPC
	_, err = m.Create("g")
	wantErr(t, "create", err, syscall.ENOSPC)
	fail[OpTruncate] = syscall.EIO
	wantErr(t, "truncate", f.Truncate(0), syscall.EIO)
	if got := content(t, m, "f"); got != "AFfore" {
		t.Errorf("content %q", got)
	}
}

func TestCrashClone_Independent(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", string(sector('a')))
	must.Succeed(t, f.Sync())
	must.Succeed(t, m.SyncDir("."))
	o, err := owner.Claim(t.Context(), m.Owner("."))
	must.Succeed(t, err)
	defer o.Release()
	c := m.CrashClone(rand.New(rand.NewPCG(1, 1)))
	g, err := c.Open("f")
	must.Succeed(t, err)
	write(t, g, sector('b'), 0)
	write(t, f, sector('c'), 0)
	if a, b := runs(t, "f")(m), runs(t, "f")(c); a != "c" || b != "b" {
		t.Errorf("original %q, clone %q", a, b)
	}
	after, err := owner.Claim(t.Context(), c.Owner("."))
	if err != nil {
		t.Fatal("an owner survives the power failure:", err)
	}
	defer after.Release()
	if after.Epoch() <= o.Epoch() {
		t.Errorf("epoch %d after %d", after.Epoch(), o.Epoch())
	}
}

func TestCrashClone_Deterministic(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", "")
	write(t, f, make([]byte, 100*sectorLength), 0)
	for i := range 100 {
		write(t, f, sector(byte('a'+i%26)), int64(i*sectorLength))
	}
	g := create(t, m, "g", "")
	write(t, g, bytes.Repeat([]byte{'x'}, 100*sectorLength), 0)
	look := func() string {
		c := m.CrashClone(rand.New(rand.NewPCG(3, 4)))
		return runs(t, "f")(c) + " " + runs(t, "g")(c)
	}
	if a, b := look(), look(); a != b {
		t.Errorf("two states from one seed:\n%s\n%s", a, b)
	}
}
