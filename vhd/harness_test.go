package vhd

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"odx/backstore"
	"odx/backstore/vfs"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/tokens"
	"odx/vhd/disk"
)

func TestMain(m *testing.M) {
	// Histories take long; -rapid.checks=N runs more of them.
	if err := flag.Set("rapid.checks", "15"); err != nil {
		panic(err)
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

var ctx = context.Background()

// medium is what a store is kept on: in memory, so that its power can be cut.
type medium struct {
	fs *vfs.Mem
}

// servedFiles is a Uses.
type servedFiles map[string]bool

var errServed = errors.New("served")

func (s servedFiles) CheckFile(name string) error {
	if s[name] {
		return fmt.Errorf("file %s: %w", name, errServed)
	}
	return nil
}

func (s servedFiles) CheckVolume(name string) error { return s.CheckFile("volume " + name) }

// bed is a manager on a store.
type bed struct {
	medium medium
	store  *backstore.Store
	tokens *tokens.Manager
	served servedFiles
	*Manager
}

func open(t must.TB, m medium) *bed {
	t.Helper()
	log := logs.Discard()
	b := &bed{medium: m, served: servedFiles{}}
	var err error
	b.store, err = backstore.Open(ctx, backstore.Options{
		Dir: "/store", Log: log, FS: m.fs, CacheBytes: 4 << 20,
		StoreDuplicates: true, // so that bytes that move show in LiveBytes
	})
	must.Succeed(t, err)
	b.tokens, err = tokens.Open(ctx, tokens.Options{Store: offload.ExtentStore{Store: b.store}, Log: log})
	must.Succeed(t, err)
	b.Manager, err = New(ctx, Config{Store: b.store, Engine: b.tokens.Engine(), Uses: b.served, Log: log})
	must.Succeed(t, err)
	return b
}

func newBed(t must.TB) *bed { return open(t, medium{vfs.NewMem()}) }

// start is newBed for a plain test.
func start(t *testing.T) *bed {
	b := newBed(t)
	t.Cleanup(func() { b.close(t) })
	return b
}

// close closes the store after it has proved every reference count, and that nothing is
// held of the tables of disks that were closed.
func (b *bed) close(t must.TB) {
	t.Helper()
	if held := b.TableBytes(); held != 0 {
		t.Fatalf("%d bytes of tables are held", held)
	}
	findings, err := b.store.Check(ctx)
	if err != nil || len(findings) > 0 {
		t.Fatalf("store check: %v, %v", findings, err)
	}
	b.Manager.Close()
	must.Succeed(t, b.tokens.Close())
	must.Succeed(t, b.store.Close())
}

// restart replaces the manager, as a start of the server does.
func (b *bed) restart(t must.TB) {
	t.Helper()
	b.Manager.Close()
	var err error
	b.Manager, err = New(ctx, Config{Store: b.store, Engine: b.tokens.Engine(), Uses: b.served, Log: b.log})
	must.Succeed(t, err)
}

func (b *bed) do(t must.TB, r Request) Result {
	t.Helper()
	result, err := b.Do(ctx, r, nil)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	return result
}

// change opens a disk as a LUN would, and closes it in order.
func (b *bed) change(t must.TB, name string, fn func(d *disk.Disk)) {
	t.Helper()
	s, err := b.Serve(ctx, name)
	if err != nil {
		t.Fatalf("serve %s: %v", name, err)
	}
	fn(s.Disk)
	must.Succeed(t, s.Close(ctx))
}

func (b *bed) write(t must.TB, name string, p []byte, off int64) {
	t.Helper()
	b.change(t, name, func(d *disk.Disk) { must.Succeed(t, d.WriteAt(ctx, p, off)) })
}

// contents reads a disk with its parents.
func (b *bed) contents(t must.TB, name string) []byte {
	t.Helper()
	src, err := b.openChain(ctx, name)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	defer src.release()
	p := make([]byte, src.size)
	if src.disk == nil {
		must.Succeed(t, src.file.ReadAt(ctx, p, 0))
	} else {
		must.Succeed(t, src.disk.ReadAt(ctx, p, 0))
	}
	return p
}

// sound fails if a disk has anything wrong.
func (b *bed) sound(t must.TB, name string) {
	t.Helper()
	findings, err := b.Check(ctx, name)
	must.Succeed(t, err)
	for _, f := range findings {
		if !f.Harmless {
			t.Fatalf("%s: %s", name, f.Text)
		}
	}
}

// same compares a disk with what it should have, and checks it.
func (b *bed) same(t must.TB, name string, want []byte) {
	t.Helper()
	if got := b.contents(t, name); !bytes.Equal(got, want) {
		t.Fatalf("%s: %s", name, difference(got, want))
	}
	b.sound(t, name)
}

func difference(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d is %#x, want %#x", i, got[i], want[i])
		}
	}
	return "no difference"
}

// files returns the names of all files, hidden ones too.
func (b *bed) files() (names []string) {
	for _, f := range b.store.Files() {
		names = append(names, f.Name())
	}
	return names
}

// noise is n bytes, of which no two blocks are alike.
func noise(seed uint64, n int64) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32)}).Read(p)
	return p
}

// raw makes a raw file.
func (b *bed) raw(t must.TB, name string, data []byte) {
	t.Helper()
	f, err := b.store.CreateFile(ctx, name)
	must.Succeed(t, err)
	must.Succeed(t, f.Truncate(ctx, int64(len(data))))
	must.Succeed(t, f.WriteAt(ctx, data, 0))
}

// with returns want with p at off.
func with(want, p []byte, off int64) []byte {
	want = slices.Clone(want)
	copy(want[off:], p)
	return want
}

// extensions are those of the formats with structure.
func forFormats(t *testing.T, fn func(t *testing.T, ext string)) {
	for _, ext := range []string{".vhd", ".vhdx"} {
		t.Run(strings.TrimPrefix(ext, "."), func(t *testing.T) { fn(t, ext) })
	}
}
