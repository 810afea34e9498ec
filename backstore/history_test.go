package backstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"odx/backstore/invariant"
)

// history drives a store with random operations and keeps the model's state
// after each operation since the last that was made durable.
type history struct {
	tb    testing.TB
	rng   *rand.Rand
	open  func() (*Store, error)
	store *Store
	// states[0] is durable; the last is now. While an operation runs, its
	// state is there already. mu guards it: power is cut by whoever uses the
	// disk, the store's own goroutines too.
	mu     sync.Mutex
	states []*model
	// acks: each operation is written out, as if it were acknowledged. kept is
	// the state, by its place in states, after the last one that was.
	acks  bool
	kept  int
	value uint32
	log   []string
	named [][]uint32 // by name in another store: the values of a block
}

const modelSectors = 5 << 20 / sector // two leaves of the map and a bit

// drawOptions draws what must make no difference to what a store holds, but for
// the capacity, where writes fail.
func drawOptions(rng *rand.Rand) Options {
	return Options{
		DedupUnit: 4 << 10 << rng.IntN(5), StoreDuplicates: rng.IntN(4) == 0, CacheBytes: []int64{64 << 10, 1 << 20, 4 << 20, 16 << 20}[rng.IntN(4)], CapacityBytes: []int64{0, 0, 1 << 20, 4 << 20}[rng.IntN(4)], tuning: tuning{writeBackBytes: []int64{0, 64 << 10, 1 << 20}[rng.IntN(3)], mergeFloor: []int64{1, 100 << 10, 4 << 20}[rng.IntN(3)], segmentBlocks: []uint32{0, planBlocks + 8, planBlocks + 100}[rng.IntN(3)]},
	}
}

// newHistory begins with two volumes in an empty store.
func newHistory(tb testing.TB, rng *rand.Rand, open func() (*Store, error)) *history {
	h := &history{tb: tb, rng: rng, open: open, states: []*model{newModel()}}
	h.openStore()
	for _, name := range []string{"a", "b"} {
		next := h.now().clone()
		next.volumes[name] = make([]uint32, modelSectors)
		h.do("create "+name, next, func(ctx context.Context) error {
			_, err := h.store.CreateVolume(ctx, name, modelSectors*sector)
			return err
		})
		h.durable()
	}
	return h
}

func (h *history) openStore() {
	var err error
	if h.store, err = h.open(); err != nil {
		h.fatalf("open: %v", err)
	}
}

func (h *history) now() *model { return h.states[len(h.states)-1] }

// do runs an operation that leads to the state next.
func (h *history) do(what string, next *model, op func(ctx context.Context) error) {
	h.tb.Helper()
	h.log = append(h.log, what)
	h.mu.Lock()
	h.states = append(h.states, next)
	h.mu.Unlock()
	err := op(context.Background())
	if errors.Is(err, ErrNoSpace) && h.store.opts.CapacityBytes > 0 {
		h.log = append(h.log, "that failed, for the store is full")
		h.partly(next)
	} else if err != nil {
		h.fatalf("%s: %v", what, err)
	}
	if h.acks {
		h.acknowledge()
	}
}

// acknowledge has all that was done outlive the process.
func (h *history) acknowledge() {
	if err := h.store.WriteOut(context.Background()); err != nil {
		h.fatalf("write out: %v", err)
	}
	h.mu.Lock()
	h.kept = len(h.states) - 1
	h.mu.Unlock()
}

// partly takes what the store holds as the state after an operation that did a
// part of what leads to the state next: each sector has been changed or not.
func (h *history) partly(next *model) {
	found, err := readModel(h.store)
	if err != nil {
		h.fatalf("after it: %v", err)
	}
	if diff := h.states[len(h.states)-2].differs(found, next); diff != "" {
		h.fatalf("after it: %s", diff)
	}
	h.mu.Lock()
	h.states = append(h.states, found)
	h.mu.Unlock()
}

func (h *history) durable() {
	h.mu.Lock()
	h.states, h.kept = h.states[len(h.states)-1:], 0
	h.mu.Unlock()
}

func (h *history) fatalf(format string, args ...any) {
	h.tb.Helper()
	for _, line := range h.log[max(0, len(h.log)-40):] {
		h.tb.Log(line)
	}
	h.tb.Fatalf(format, args...)
}

func (h *history) volume(name string) *Volume {
	find := h.store.Volume
	if file, ok := strings.CutPrefix(name, "/"); ok {
		name, find = file, h.store.File
	}
	v, err := find(name)
	if err != nil {
		h.fatalf("%v", err)
	}
	return v
}

// span draws a range of sectors, often aligned to blocks or to leaves.
func (h *history) span(limit int) (at, n int) {
	align := []int{1, 8, 8, 64, 4096}[h.rng.IntN(5)]
	at = h.rng.IntN(limit/align+1) * align
	n = 1 + h.rng.IntN(40)
	if h.rng.IntN(4) == 0 {
		n = 1 + h.rng.IntN(2000)
	}
	if align > 1 {
		n = (n + align - 1) / align * align
	}
	if at >= limit {
		at = 0
	}
	return at, min(n, limit-at)
}

func (h *history) name() string { return []string{"a", "b"}[h.rng.IntN(2)] }

func (h *history) write() { h.writeTo(h.name()) }

func (h *history) writeTo(name string) {
	at, n := h.span(len(h.now().volumes[name]))
	vals := make([]uint32, n)
	kind := h.rng.IntN(3)
	for i := range vals {
		switch kind {
		case 0: // new data
			h.value++
			vals[i] = h.value + 100
		case 1: // often written before
			vals[i] = uint32((at+i)%64) / 8
		case 2: // blocks of zeros between
			vals[i] = uint32((at+i)/8%2) * 77
		}
	}
	v := h.volume(name)
	h.do(fmt.Sprintf("write %s %d+%d kind %d", name, at, n, kind), h.now().overwrite(name, at, vals), func(ctx context.Context) error {
		return v.WriteAt(ctx, content(vals), int64(at)*sector)
	})
}

func (h *history) zero() {
	name := h.name()
	at, n := h.span(modelSectors)
	v := h.volume(name)
	h.do(fmt.Sprintf("zero %s %d+%d", name, at, n), h.now().overwrite(name, at, make([]uint32, n)), func(ctx context.Context) error {
		return v.Zero(ctx, int64(at)*sector, int64(n)*sector)
	})
}

func (h *history) compareAndWrite() {
	name := h.name()
	at, n := h.span(modelSectors)
	n = min(n, 100)
	old := h.now().volumes[name][at : at+n]
	h.value++
	vals := slices.Repeat([]uint32{h.value + 100}, n)
	compare, next, want := content(old), h.now().overwrite(name, at, vals), -1
	if h.rng.IntN(2) == 0 {
		want = h.rng.IntN(len(compare))
		compare[want] ^= 1
		next = h.now().clone()
	}
	v := h.volume(name)
	h.do(fmt.Sprintf("compare and write %s %d+%d, mismatch %d", name, at, n, want), next, func(ctx context.Context) error {
		got, err := v.CompareAndWrite(ctx, compare, content(vals), int64(at)*sector)
		if err == nil && got != want {
			err = fmt.Errorf("mismatch at %d, want %d", got, want)
		}
		return err
	})
}

func (h *history) snapshot() {
	if len(h.now().snapshots) > 5 {
		h.deleteSnapshot()
		return
	}
	name := h.name()
	var ranges []Range
	var vals []uint32
	for range 1 + h.rng.IntN(3) {
		at, n := h.span(modelSectors)
		ranges = append(ranges, Range{Offset: int64(at) * sector, Length: int64(n) * sector})
		vals = append(vals, h.now().volumes[name][at:at+n]...)
	}
	v := h.volume(name)
	next := h.now().clone()
	h.do(fmt.Sprintf("snapshot %s %v", name, ranges), next, func(ctx context.Context) error {
		n, err := v.Snapshot(ctx, ranges, func(id uint64) []Record {
			next.snapshots[id] = vals
			next.records[fmt.Sprintf("snap%d", id)] = name
			return []Record{{Key: fmt.Appendf(nil, "snap%d", id), Value: []byte(name)}}
		})
		if err == nil {
			n.Release()
		}
		return err
	})
}

func (h *history) anySnapshot() (uint64, []uint32) {
	ids := slices.Sorted(maps.Keys(h.now().snapshots))
	if len(ids) == 0 {
		return 0, nil
	}
	id := ids[h.rng.IntN(len(ids))]
	return id, h.now().snapshots[id]
}

func (h *history) deleteSnapshot() {
	id, _ := h.anySnapshot()
	if id == 0 {
		return
	}
	next := h.now().clone()
	delete(next.snapshots, id)
	delete(next.records, fmt.Sprintf("snap%d", id))
	h.do(fmt.Sprintf("delete snapshot %d", id), next, func(ctx context.Context) error {
		return h.store.DeleteSnapshot(ctx, id, Record{Key: fmt.Appendf(nil, "snap%d", id)})
	})
}

// mapCopy copies from a snapshot, sometimes while it is being deleted.
func (h *history) mapCopy() {
	id, vals := h.anySnapshot()
	if id == 0 {
		return
	}
	name := h.name()
	src, n := h.span(len(vals))
	dst, room := h.span(modelSectors)
	if h.rng.IntN(2) == 0 {
		room = modelSectors - dst
	}
	n = min(n, room)
	from, err := h.store.Snapshot(id)
	if err != nil {
		h.fatalf("%v", err)
	}
	defer from.Release()
	if h.rng.IntN(4) == 0 {
		h.deleteSnapshotID(id)
	}
	v := h.volume(name)
	next := h.now().overwrite(name, dst, vals[src:src+n])
	h.do(fmt.Sprintf("map %s %d+%d from snapshot %d at %d", name, dst, n, id, src), next, func(ctx context.Context) error {
		for done := int64(0); done < int64(n)*sector; {
			k, err := v.Map(ctx, int64(dst)*sector+done, from, int64(src)*sector+done, int64(n)*sector-done)
			if err != nil {
				return err
			}
			done += k
		}
		return nil
	})
}

func (h *history) deleteSnapshotID(id uint64) {
	next := h.now().clone()
	delete(next.snapshots, id)
	delete(next.records, fmt.Sprintf("snap%d", id))
	h.do(fmt.Sprintf("delete snapshot %d in use", id), next, func(ctx context.Context) error {
		return h.store.DeleteSnapshot(ctx, id, Record{Key: fmt.Appendf(nil, "snap%d", id)})
	})
}

func (h *history) record() {
	key := fmt.Sprintf("key%d", h.rng.IntN(5))
	next := h.now().clone()
	rec := Record{Key: []byte(key)}
	if h.rng.IntN(3) > 0 {
		rec.Value = fmt.Appendf(nil, "value %d", h.rng.IntN(1000))
		next.records[key] = string(rec.Value)
	} else {
		delete(next.records, key)
	}
	h.do("record "+key, next, func(ctx context.Context) error { return h.store.PutRecords(ctx, rec) })
}

func (h *history) flush() {
	h.do("flush", h.now(), h.store.Flush)
	h.durable()
}

func (h *history) checkpoint() {
	h.do("checkpoint", h.now(), h.store.Checkpoint)
	h.durable()
	if invariant.Enabled {
		h.verify()
	}
}

func (h *history) reopen() {
	h.log = append(h.log, "close and open")
	if err := h.store.Close(); err != nil {
		h.fatalf("close: %v", err)
	}
	h.openStore()
	h.durable()
}

// step does one random operation.
func (h *history) step() {
	switch n := h.rng.IntN(100); {
	case n < 32:
		h.write()
	case n < 36:
		h.file()
	case n < 39:
		h.clone()
	case n < 40:
		h.revert()
	case n < 44:
		h.zero()
	case n < 48:
		h.known()
	case n < 53:
		h.compareAndWrite()
	case n < 63:
		h.snapshot()
	case n < 66:
		h.deleteSnapshot()
	case n < 80:
		h.mapCopy()
	case n < 85:
		h.record()
	case n < 93:
		h.flush()
	case n < 96:
		h.checkpoint()
	case n < 98:
		h.do("clean", h.now(), h.store.Clean)
		h.durable()
	default:
		h.reopen()
	}
}

// verify proves the running store against the model and its own counts.
func (h *history) verify() {
	h.tb.Helper()
	found, err := readModel(h.store)
	if err != nil {
		h.fatalf("%v", err)
	}
	if diff := h.now().differs(found, h.now()); diff != "" {
		h.fatalf("%s", diff)
	}
	findings, err := h.store.Check(context.Background())
	if err != nil || len(findings) > 0 {
		h.fatalf("check: %v %v", findings, err)
	}
}
