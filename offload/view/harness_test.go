package view

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"odx/backstore"
	"odx/backstore/vfs"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// disk is the storage of a store, in memory for simulated power cuts.
type disk struct {
	fs *vfs.Mem
}

// bed is a store with a token manager, and the views over it.
type bed struct {
	disk    disk
	store   *backstore.Store
	manager *tokens.Manager
	foreign *offloadtest.Store // for volumes outside the store
	closers []func(context.Context) error
	names   atomic.Int64
}

func open(t must.TB, d disk) *bed {
	t.Helper()
	b := &bed{disk: d, foreign: offloadtest.NewStore([16]byte{9})}
	var err error
	b.store, err = backstore.Open(ctx, backstore.Options{
		Dir: "/store", Log: logs.Discard(), FS: d.fs, CacheBytes: 4 << 20,
		StoreDuplicates: true, // so that LiveBytes counts moved bytes
	})
	if err != nil {
		t.Fatal(err)
	}
	if b.manager, err = tokens.Open(ctx, tokens.Options{Store: offload.ExtentStore{Store: b.store}, Log: logs.Discard()}); err != nil {
		t.Fatal(err)
	}
	return b
}

func newBed(t must.TB) *bed { return open(t, disk{vfs.NewMem()}) }

// start is newBed for a test without rapid.
func start(t *testing.T) *bed {
	b := newBed(t)
	t.Cleanup(func() { b.close(t) })
	return b
}

func (b *bed) close(t must.TB) {
	t.Helper()
	for i := len(b.closers) - 1; i >= 0; i-- {
		if err := b.closers[i](ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.manager.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) name() string {
	return fmt.Sprintf("v%d", b.names.Add(1))
}

// volume creates a volume of the store.
func (b *bed) volume(t must.TB, size int64) *backstore.Volume {
	t.Helper()
	v, err := b.store.CreateVolume(ctx, b.name(), (size+4095)/4096*4096)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// outside creates a volume outside the store, with blocks of 512 bytes.
func (b *bed) outside(size int64) blockdev.Volume {
	return offloadtest.Foreign{Volume: b.foreign.NewVolume(b.name(), size), BlockLength: 512}
}

func (b *bed) base(v blockdev.Volume) Device { return Base(b.manager.Engine(), v) }

func (b *bed) mirror(t must.TB, legs ...Device) *Mirror {
	t.Helper()
	c := MirrorConfig{Name: b.name(), Engine: b.manager.Engine(), Records: b.store, Log: logs.Discard()}
	for i, d := range legs {
		c.Legs = append(c.Legs, Leg{Device: d, ID: fmt.Sprint("leg", i)})
	}
	m, err := OpenMirror(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	b.closers = append(b.closers, m.Close)
	return m
}

func (b *bed) verify(t must.TB, of Device) *Verify {
	t.Helper()
	v, err := NewVerify("checked", of, b.volume(t, SumsBytes(of.Size())), b.manager.Engine())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (b *bed) origin(t must.TB, of Device) *Origin {
	t.Helper()
	o, err := OpenOrigin(OriginConfig{Name: b.name(), Of: of, Before: b.volume(t, OriginBytes(of.Size())), Engine: b.manager.Engine(), Records: b.store})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (b *bed) cache(of Device, writeBack bool, lines int) *Cache {
	c, err := NewCache(CacheConfig{Of: of, Bytes: minCacheBytes, WriteBack: writeBack})
	if err != nil {
		panic(err)
	}
	c.capacity = lines
	return c
}

func stripeOf(t must.TB, unit int64, legs ...Device) Device {
	t.Helper()
	d, err := NewStripe(legs, unit)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// contents returns all bytes of v.
func contents(t must.TB, v blockdev.Volume) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	must.Succeed(t, v.ReadAt(ctx, p, 0))
	return p
}

// pattern is n bytes that differ by block and by seed.
func pattern(seed byte, n int64) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = seed + byte(i>>9)*7 + byte(i)
	}
	return p
}

// same compares two byte slices.
func same(t must.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("%s: differs from byte %d (of %d, want %d) on", what, i, len(got), len(want))
		}
	}
	t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
}

// populate creates a token.
func (b *bed) populate(t must.TB, v blockdev.Volume, ranges ...blockdev.Range) (*tokens.Token, int64) {
	t.Helper()
	r, err := b.manager.OffloadRead(ctx, tokens.Source{Volume: v, LU: tokens.LU{BlockLength: 512}}, ranges, tokens.ReadOptions{})
	must.Succeed(t, err)
	return r.Token, r.Represented
}

// writeUsing repeats WRITE USING TOKEN until all bytes are written, as initiators do.
func (b *bed) writeUsing(t must.TB, token *tokens.Token, v blockdev.Volume, off, length int64) {
	t.Helper()
	for done := int64(0); done < length; {
		n, err := b.manager.OffloadWrite(ctx, token, done, offload.Destination{Volume: v, BlockLength: 512},
			[]blockdev.Range{{Offset: off + done, Length: length - done}}, tokens.WriteOptions{})
		must.Succeed(t, err)
		if n == 0 {
			t.Fatal("no progress")
		}
		done += n
	}
}

var errInjected = errors.New("injected")

// faulty is a volume whose reads, writes or flushes fail while a flag is set.
type faulty struct {
	blockdev.Volume
	reads, writes, flushes atomic.Bool
}

func (f *faulty) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.reads.Load() {
		return errInjected
	}
	return f.Volume.ReadAt(ctx, p, off)
}

func (f *faulty) WriteAt(ctx context.Context, p []byte, off int64) error {
	if f.writes.Load() {
		return errInjected
	}
	return f.Volume.WriteAt(ctx, p, off)
}

func (f *faulty) Unmap(ctx context.Context, off, length int64) error {
	if f.writes.Load() {
		return errInjected
	}
	return f.Volume.Unmap(ctx, off, length)
}

func (f *faulty) Flush(ctx context.Context) error {
	if f.flushes.Load() {
		return errInjected
	}
	return f.Volume.Flush(ctx)
}
