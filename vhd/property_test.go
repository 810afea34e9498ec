package vhd

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore/vfs"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
)

// modelDisk is what a disk should be.
type modelDisk struct {
	data   []byte // what it shows
	parent string
}

// model is what the store should hold: disks by name of the file. It is replaced,
// never changed.
type model map[string]modelDisk

func (m model) children(name string) (all []string) {
	for _, child := range slices.Sorted(maps.Keys(m)) {
		if m[child].parent == name {
			all = append(all, child)
		}
	}
	return all
}

// powerCut is what a power cut left, and what the store may hold then: before or after
// the operation that was under way. Where that was a write, sectors of the range can
// be either.
type powerCut struct {
	medium        medium
	before, after model
	written       string // name of the disk, if it was a write
}

// history drives a bed and its model.
type history struct {
	*bed
	rng  *rand.Rand
	size int64
	now  model
	made int

	mu      sync.Mutex // guards what follows
	next    model      // what the operation under way leads to, nil if there is none
	written string     // the disk that it writes to, if it is a write
	odds    int        // one of so many changes of the medium is cut
	left    int        // cuts that the operation under way still gets
	cutRNG  *rand.Rand
	cuts    []powerCut
}

const (
	historySize = 3*mib + 512*5
	historyStep = 24
	historyCuts = 6
)

// TestHistories: random chains of disks under random operations are what a model says,
// and whenever the power is cut, each file is what it was before the operation or what
// it should be after it.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{bed: newBed(t), now: model{}, size: historySize}
		h.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		h.cutRNG = rand.New(rand.NewPCG(h.rng.Uint64(), 1))
		h.medium.fs.SetHook(func(kind vfs.OpKind, _ string) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if kind.Changes() && h.next != nil && h.left > 0 && h.cutRNG.IntN(h.odds) == 0 {
				h.left--
				h.cut(h.now)
			}
			return nil
		})
		for range historyStep {
			h.step(t)
		}
		h.medium.fs.SetHook(nil)
		h.verify(t, h.now)
		h.close(t)
		for _, cut := range h.cuts {
			cut.check(t)
		}
	})
}

// cut takes the medium as a power cut would leave it, which holds before or h.next.
// h.mu is held.
func (h *history) cut(before model) {
	m := medium{h.medium.fs.CrashClone(h.cutRNG)}
	h.cuts = append(h.cuts, powerCut{m, before, h.next, h.written})
}

// step does one random thing.
func (h *history) step(t must.TB) {
	t.Helper()
	names := slices.Sorted(maps.Keys(h.now))
	if len(names) == 0 || len(names) < 5 && h.rng.IntN(6) == 0 {
		h.create(t)
		return
	}
	name := names[h.rng.IntN(len(names))]
	leaf := len(h.now.children(name)) == 0
	switch n := h.rng.IntN(14); {
	case n < 4 && leaf:
		h.writeSome(t, name)
	case n < 6 && leaf:
		h.snapshot(t, name)
	case n < 9 && h.now[name].parent != "":
		h.mergeSome(t, name)
	case n < 10:
		h.run(t, Request{Operation: Compact, Source: name}, h.now)
	case n < 11:
		h.run(t, Request{Operation: Defragment, Source: name}, h.now)
	case n < 12 && leaf:
		h.resize(t, name)
	case n < 13:
		h.convert(t, name)
	case leaf && len(names) > 3:
		next := maps.Clone(h.now)
		delete(next, name)
		h.durably(t, next, "", func() error {
			return errors.Join(h.store.DeleteFile(ctx, name), h.store.Flush(ctx))
		})
	}
}

// durably makes the change to next, which is there or not when the power is cut, and
// there once it is done. One of four changes is cut.
func (h *history) durably(t must.TB, next model, written string, do func() error) {
	t.Helper()
	h.mu.Lock()
	h.next, h.written, h.odds, h.left = next, written, 1+h.rng.IntN(12), 0
	if h.rng.IntN(4) == 0 && len(h.cuts) < historyCuts {
		h.left = 1
	}
	cutting := h.left > 0
	h.mu.Unlock()
	must.Succeed(t, do())
	h.mu.Lock()
	defer h.mu.Unlock()
	if cutting {
		h.written = ""
		h.cut(next)
	}
	h.now, h.next = next, nil
}

func (h *history) run(t must.TB, r Request, next model) {
	t.Helper()
	h.durably(t, next, "", func() error {
		_, err := h.Do(ctx, r, nil)
		if err != nil {
			err = fmt.Errorf("%+v: %w", r, err)
		}
		return err
	})
}

func (h *history) name() string {
	h.made++
	return fmt.Sprintf("%s%d%s", []string{"", "dir/"}[h.rng.IntN(2)], h.made, []string{".vhd", ".vhdx"}[h.rng.IntN(2)])
}

func (h *history) create(t must.TB) {
	t.Helper()
	r := Request{Operation: Create, Destination: h.name(), Size: h.size, Fixed: h.rng.IntN(4) == 0, BlockLength: mib << h.rng.IntN(2)}
	next := maps.Clone(h.now)
	next[r.Destination] = modelDisk{data: make([]byte, h.size)}
	h.run(t, r, next)
}

// writeSome writes to a disk as a LUN would: data, zeros or an unmap.
func (h *history) writeSome(t must.TB, name string) {
	t.Helper()
	old := h.now[name]
	off := h.rng.Int64N(int64(len(old.data))/512) * 512
	n := min(int64(1+h.rng.IntN(1<<h.rng.IntN(13)))*512, int64(len(old.data))-off)
	p := make([]byte, n)
	if h.rng.IntN(4) > 0 {
		p = noise(h.rng.Uint64(), n)
	}
	next := maps.Clone(h.now)
	next[name] = modelDisk{with(old.data, p, off), old.parent}
	unmap := h.rng.IntN(4) == 0
	if unmap {
		clear(next[name].data[off : off+n])
	}
	h.durably(t, next, name, func() error {
		s, err := h.Serve(ctx, name)
		if err != nil {
			return err
		}
		if unmap {
			err = s.Unmap(ctx, off, n)
		} else {
			err = s.WriteAt(ctx, p, off)
		}
		return errors.Join(err, s.Close(ctx))
	})
}

func (h *history) snapshot(t must.TB, name string) {
	t.Helper()
	child := h.name()
	if FormatOf(child) != FormatOf(name) {
		return
	}
	next := maps.Clone(h.now)
	next[child] = modelDisk{h.now[name].data, name}
	h.run(t, Request{Operation: Snapshot, Source: name, Destination: child}, next)
}

// mergeSome merges a disk into one of its parents, if no other disk needs those.
func (h *history) mergeSome(t must.TB, name string) {
	t.Helper()
	next := maps.Clone(h.now)
	into := name
	for levels := 1 + h.rng.IntN(3); levels > 0 && h.now[into].parent != ""; levels-- {
		if into == name && len(h.now.children(name)) > 0 || len(h.now.children(h.now[into].parent)) > 1 {
			break
		}
		delete(next, into)
		into = h.now[into].parent
	}
	if into == name {
		return
	}
	next[into] = modelDisk{h.now[name].data, h.now[into].parent}
	h.run(t, Request{Operation: Merge, Source: name, Destination: into}, next)
}

func (h *history) resize(t must.TB, name string) {
	t.Helper()
	old := h.now[name]
	size := (1 + h.rng.Int64N(2*h.size/512)) * 512
	data := append(slices.Clone(old.data[:min(size, int64(len(old.data)))]), make([]byte, max(size-int64(len(old.data)), 0))...)
	r := Request{Operation: Resize, Source: name, Size: size}
	if size < int64(len(old.data)) && bytes.ContainsFunc(old.data[size:], func(r rune) bool { return r != 0 }) {
		if _, err := h.Do(ctx, r, nil); !errors.Is(err, blockdev.ErrInvalid) {
			t.Fatalf("%+v cuts data off: %v", r, err)
		}
		return
	}
	next := maps.Clone(h.now)
	next[name] = modelDisk{data, old.parent}
	h.run(t, r, next)
}

// convert makes a disk of its own, at times by way of a volume.
func (h *history) convert(t must.TB, name string) {
	t.Helper()
	r := Request{Operation: Convert, Source: name, Destination: h.name(), Fixed: h.rng.IntN(3) == 0}
	next := maps.Clone(h.now)
	next[r.Destination] = modelDisk{data: h.now[name].data}
	if h.rng.IntN(3) == 0 {
		volume := fmt.Sprint("v", h.made)
		h.run(t, Request{Operation: ToVolume, Source: name, Destination: volume}, h.now)
		r.Operation, r.Source = FromVolume, volume
	}
	h.run(t, r, next)
}

// verify compares all disks with a model.
func (h *history) verify(t must.TB, want model) {
	t.Helper()
	if err := h.compare(want, ""); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		h.sound(t, name)
	}
}

// compare returns how the store differs from a model. Of the disk written to, only the
// length counts.
func (b *bed) compare(want model, written string) error {
	if names := b.files(); !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
		return fmt.Errorf("files are %v, want %v", names, slices.Sorted(maps.Keys(want)))
	}
	for name, d := range want {
		src, err := b.openChain(ctx, name)
		if err != nil {
			return err
		}
		got := make([]byte, src.size)
		err = src.disk.ReadAt(ctx, got, 0)
		src.release()
		if err != nil {
			return err
		}
		if len(got) == len(d.data) && name == written {
			continue
		}
		if !bytes.Equal(got, d.data) {
			return fmt.Errorf("%s: %s", name, difference(got, d.data))
		}
	}
	return nil
}

// check opens what a power cut left.
func (c *powerCut) check(t must.TB) {
	t.Helper()
	b := open(t, c.medium)
	before, after := b.compare(c.before, c.written), b.compare(c.after, c.written)
	if before != nil && after != nil {
		t.Fatalf("after a power cut it is not as before the operation: %v; nor as after it: %v", before, after)
	}
	if c.written != "" {
		got, old, now := b.contents(t, c.written), c.before[c.written].data, c.after[c.written].data
		for i := 0; i < len(got); i += 512 {
			if s := got[i : i+512]; !bytes.Equal(s, old[i:i+512]) && !bytes.Equal(s, now[i:i+512]) {
				t.Fatalf("%s: the sector at %d is neither what it was nor what was written", c.written, i)
			}
		}
	}
	for _, name := range b.files() {
		b.sound(t, name)
	}
	// And it can be worked with.
	for _, name := range b.files() {
		b.change(t, name, func(d *disk.Disk) { must.Succeed(t, d.Flush(ctx)) })
	}
	b.close(t)
}
