package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/backstore/vfs"
	"odx/blockdev"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/replica/pair"
)

const (
	farURL    = "iscsi://192.0.2.9:3260/iqn.2026-11.com.example:array/0"
	worldSize = 1 << 20
	block     = backstore.BlockLength
)

var lunIdentity = [16]byte{0x60, 1}

// far is the LUN of another target. What is not flushed is lost with its power.
type far struct {
	mu            sync.Mutex // guards what follows
	data, durable []byte
	dirty, lost   bool // something is not flushed; some of that was lost
	n             int  // operations so far
	at            int  // the operation that fails; 0: none does
	how           int  // see faults
	gone          int  // how many operations fail since the target is gone
	condition     Condition
	blockLength   int
	grown         int64 // bytes beyond worldSize
}

var errFar = fmt.Errorf("%w: the other target", blockdev.ErrUnavailable)

// faults are what happens at an operation.
const (
	failsBefore = iota // it has no effect
	failsAfter         // it is done, and no answer comes
	tears              // a part of it is done
	loses              // the target loses its power first, and is back at once
	leaves             // the target loses its power, and is gone for some operations
	faults
)

// do does an operation. effect does a part of it, in bytes.
func (f *far) do(length int, effect func(n int)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.gone > 0 {
		f.gone--
		return errFar
	}
	if f.n != f.at {
		effect(length)
		return nil
	}
	switch f.how {
	case failsBefore:
		return errFar
	case tears:
		effect(length / 2 / 512 * 512)
		return errFar
	case loses:
		f.lose()
	case leaves:
		f.lose()
		f.gone = 2
		return errFar
	}
	effect(length)
	if f.how == failsAfter {
		return errFar
	}
	return nil
}

// lose loses the power. The caller holds mu.
func (f *far) lose() {
	f.data = bytes.Clone(f.durable)
	f.lost, f.dirty = f.lost || f.dirty, false
}

func (f *far) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return worldSize + f.grown
}

// grow makes it larger; there is something in what it grows by.
func (f *far) grow(by int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	more := bytes.Repeat([]byte{0xaa}, int(by))
	f.data, f.durable, f.grown = append(f.data, more...), append(f.durable, more...), f.grown+by
}

func (f *far) ReadAt(_ context.Context, p []byte, off int64) error {
	return f.do(len(p), func(n int) { copy(p[:n], f.data[off:]) })
}
func (f *far) WriteAt(_ context.Context, p []byte, off int64) error {
	return f.do(len(p), func(n int) { copy(f.data[off:], p[:n]); f.dirty = true })
}
func (f *far) Unmap(_ context.Context, off, length int64) error {
	return f.do(int(length), func(n int) { clear(f.data[off : off+int64(n)]); f.dirty = true })
}

// Flush fails once after a loss, as foreign.Disk does.
func (f *far) Flush(context.Context) error {
	lost := false
	err := f.do(0, func(int) {
		f.durable, f.dirty = bytes.Clone(f.data), false
		lost, f.lost = f.lost, false
	})
	if err == nil && lost {
		return errors.New("what was written may be lost")
	}
	return err
}
func (f *far) BlockLength() int                             { return f.blockLength }
func (f *far) Condition(context.Context) (Condition, error) { return f.condition, nil }

// clone returns the LUN as another server finds it.
func (f *far) clone(power bool) *far {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &far{data: bytes.Clone(f.data), durable: bytes.Clone(f.durable), blockLength: f.blockLength}
	if !power {
		c.data = bytes.Clone(f.durable)
	}
	return c
}

// world is a server with a LUN on a volume that moves to the LUN of another target. Initiators
// write in between the steps.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	fs    *vfs.Mem
	store *backstore.Store
	m     *Manager
	far   *far
	// onFar is what the configuration file says, held that commands are.
	mu          sync.Mutex // guards onFar and held
	onFar, held bool
	model       []byte // what the LUN has
	reached     func(step string)
	forgotten   int
	refused     int // how many cuts fail while commands are held, before anything has changed
	// opened counts how often far was opened, and inUse how often it is open.
	opened, inUse int
}

// newWorld starts a server on the disk of an earlier one.
func newWorld(t *testing.T, rng *rand.Rand, fs *vfs.Mem, f *far, onFar bool) *world {
	t.Helper()
	w := &world{t: t, rng: rng, fs: fs, far: f, onFar: onFar}
	var err error
	w.store, err = backstore.Open(t.Context(), backstore.Options{Dir: "/store", Log: logs.Discard(), FS: fs, CacheBytes: 8 << 20})
	must.Succeed(t, err)
	engine, err := offload.Open(t.Context(), offload.ExtentStore{Store: w.store}, nil)
	must.Succeed(t, err)
	w.m, err = New(Options{
		Store: w.store, Engine: engine, References: noReferences{}, Server: server{w}, Log: logs.Discard(), Window: worldSize / 8,
		Reached: func(step string) { w.at(step) },
	})
	must.Succeed(t, err)
	return w
}

// begin starts a server with a volume, and a LUN elsewhere that has something.
func begin(t *testing.T, rng *rand.Rand) *world {
	t.Helper()
	f := &far{data: make([]byte, worldSize), blockLength: 512}
	for i := range f.data {
		f.data[i] = byte(rng.Uint32())
	}
	f.durable = bytes.Clone(f.data)
	w := newWorld(t, rng, vfs.NewMem(), f, false)
	_, err := w.store.CreateVolume(t.Context(), "a", worldSize)
	must.Succeed(t, err)
	w.model = make([]byte, worldSize)
	for range 40 {
		w.write()
	}
	return w
}

// end stops the server.
func (w *world) end() {
	w.m.Close()
	must.Succeed(w.t, w.store.Close())
}

// at is what happens at a step.
func (w *world) at(step string) {
	w.mu.Lock()
	held := w.held
	w.mu.Unlock()
	if w.model != nil && !held {
		for range w.rng.IntN(4) {
			w.write()
		}
	}
	if w.reached != nil {
		w.reached(step)
	}
}

// write has an initiator write or unmap something, and flush at times.
func (w *world) write() {
	off := int64(w.rng.IntN(worldSize/block)) * block
	p := make([]byte, block*(1+w.rng.IntN(4)))
	p = p[:min(int64(len(p)), worldSize-off)]
	var err error
	if v, ctx := w.lun(), w.t.Context(); w.rng.IntN(4) == 0 {
		err = v.Unmap(ctx, off, int64(len(p)))
	} else {
		for i := range p {
			p[i] = byte(w.rng.Uint32())
		}
		err = v.WriteAt(ctx, p, off)
	}
	must.Succeed(w.t, err)
	must.Succeed(w.t, w.store.WriteOut(w.t.Context())) // before it is answered
	copy(w.model[off:], p)
	if w.rng.IntN(3) == 0 {
		must.Succeed(w.t, w.store.Flush(w.t.Context()))
	}
}

// lun returns what the LUN is on.
func (w *world) lun() blockdev.Volume {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.onFar {
		return served{w.far}
	}
	v, err := w.store.Volume("a")
	must.Succeed(w.t, err)
	return v
}

// served is the LUN of the other target below a LUN: what it has written is durable, and it
// waits for a target that is gone.
type served struct{ *far }

func (s served) WriteAt(_ context.Context, p []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.data[off:], p)
	copy(s.durable[off:], p)
	return nil
}

func (s served) Unmap(ctx context.Context, off, length int64) error {
	return s.WriteAt(ctx, make([]byte, length), off)
}

func (s served) ReadAt(_ context.Context, p []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(p, s.data[off:])
	return nil
}

// content returns what the LUN has.
func (w *world) content() []byte {
	p := make([]byte, worldSize)
	must.Succeed(w.t, w.lun().ReadAt(context.WithoutCancel(w.t.Context()), p, 0))
	return p
}

// start begins the migration.
func (w *world) start() {
	w.t.Helper()
	_, err := w.m.StartMigration(w.t.Context(), admin.MigrationRequest{Volume: "a", To: farURL, Overwrite: true})
	must.Succeed(w.t, err)
}

// await waits until the migration has ended.
func (w *world) await() admin.Migration {
	w.t.Helper()
	g, err := w.m.find("a")
	must.Succeed(w.t, err)
	for {
		if s := g.status(); !s.Ended.IsZero() || w.t.Failed() {
			return s
		}
		w.m.mu.Lock()
		done := g.done
		w.m.mu.Unlock()
		select {
		case <-done:
		case <-time.After(5 * time.Minute):
			w.t.Errorf("the migration does not end: %+v", g.status())
		}
	}
}

// check requires that the LUN has what it should have, also after a loss of the power of both
// sides, and that nothing is left of a migration that has ended.
func (w *world) check(m admin.Migration, want []byte) {
	w.t.Helper()
	if w.onFar != (m.State == admin.MigrationMoved) {
		w.t.Errorf("%s, and the configuration says moved: %t", m.State, w.onFar)
	}
	if got := w.content(); !bytes.Equal(got, want) {
		w.t.Errorf("%s: the LUN has other data at %v", m.State, differing(got, want))
	}
	if w.onFar && !bytes.Equal(w.far.durable, want) {
		w.t.Errorf("the LUN has moved, and is not durable at %v", differing(w.far.durable, want))
	}
	stats, err := w.store.Stats(w.t.Context())
	must.Succeed(w.t, err)
	if stats.Snapshots != 0 {
		w.t.Errorf("%s: %d snapshots are left", m.State, stats.Snapshots)
	}
	_, err = w.m.FinishMigration(w.t.Context(), "a", false)
	must.Succeed(w.t, err)
	if _, err := w.store.Volume("a"); (err == nil) == w.onFar {
		w.t.Errorf("%s and finished: the source: %v", m.State, err)
	}
}

// differing returns the blocks in which contents differ.
func differing(a, b []byte) (blocks []int) {
	for i := 0; i < len(a); i += block {
		if !bytes.Equal(a[i:i+block], b[i:i+block]) {
			blocks = append(blocks, i/block)
		}
	}
	return blocks
}

type noReferences struct{}

func (noReferences) EndReferences(context.Context, [16]byte) error { return nil }

// server implements Server for a world.
type server struct{ w *world }

var errUnused = errors.New("not for this destination")

func (s server) Serving(d conf.Device) (identity [16]byte, ok bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	here := conf.Device{Volume: "a"}
	if s.w.onFar {
		here = conf.Device{ISCSI: farURL}
	}
	return lunIdentity, d == here
}

func (s server) Open(_ context.Context, d conf.Device) (blockdev.Volume, error) {
	return nil, fmt.Errorf("%s: %w", d, backstore.ErrNotFound)
}

func (s server) OpenForeign(_ context.Context, c Cut) (Foreign, error) {
	if c.Identity != lunIdentity || c.To.ISCSI != farURL || c.From.Volume != "a" {
		return nil, fmt.Errorf("%w: %+v", blockdev.ErrInvalid, c)
	}
	s.w.opened++
	s.w.inUse++
	return use{s.w.far, s.w}, nil
}

// use is a use of the LUN of the other target.
type use struct {
	*far
	w *world
}

func (u use) Close() error {
	u.w.inUse--
	return nil
}

func (s server) ForgetForeign(context.Context, string) error {
	s.w.forgotten++
	return nil
}

func (s server) hold(held bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.held = held
}

func (s server) Cut(ctx context.Context, c Cut) (time.Duration, error) {
	s.hold(true)
	defer s.hold(false)
	s.w.at("held")
	if s.w.refused > 0 {
		s.w.refused--
		return time.Millisecond, errors.New("a copy in the background")
	}
	if err := c.Last(ctx); err != nil {
		c.Stays(ctx)
		return time.Millisecond, err
	}
	s.w.at("last")
	s.w.mu.Lock()
	s.w.onFar = true
	s.w.mu.Unlock()
	s.w.at("file replaced")
	c.Moved(ctx)
	return time.Millisecond, nil
}

func (s server) Limit(conf.Device, int64) {}

func (s server) LUNs(conf.Device) []pair.MovedLUN {
	return []pair.MovedLUN{{Target: "iqn.2026-11.example:a", BlockLength: 512}}
}

func (s server) CheckRedirect(conf.Device, string) error { return errUnused }
func (s server) Depart(context.Context, Departure) (time.Duration, error) {
	return 0, errUnused
}
func (s server) Units(conf.Device) ([]pair.UnitRecord, error) { return nil, errUnused }
func (s server) Away(context.Context, conf.Device, pair.Outcome, string) error {
	return errUnused
}
func (s server) Forget(context.Context, conf.Device) error { return errUnused }
