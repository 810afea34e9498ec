package blockmap

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/pages"
)

// countedExtents counts references like the extent table, for any slot.
type countedExtents map[extent.Slot]int

func (c countedExtents) Ref(slots []extent.Slot) error {
	for _, s := range slots {
		if s != 0 {
			c[s]++
		}
	}
	return nil
}

func (countedExtents) Touch([]extent.Slot) error { return nil }

func (countedExtents) TouchRef([]extent.Slot) error { return nil }

func (c countedExtents) Unref(slots []extent.Slot) error {
	for _, s := range slots {
		if s == 0 {
			continue
		}
		if c[s]--; c[s] == 0 {
			delete(c, s)
		}
	}
	return nil
}

// tree is a Root and the model of its mappings.
type tree struct {
	root  Root
	model map[uint64]extent.Slot
}

// testBlocks spans three levels, so that nodes of each kind are shared.
const testBlocks = 3 * Fanout * Fanout

type machine struct {
	forest  *Forest
	extents countedExtents
	trees   []*tree
	slot    extent.Slot
}

func newMachine(kv *meta.Mem, clock *pages.Clock) *machine {
	m := &machine{extents: countedExtents{}, slot: 1}
	m.forest = New(Options{KV: kv, Clock: clock, Extents: m.extents, MaxBytes: 1 << 20})
	for range 3 {
		m.trees = append(m.trees, &tree{root: Root{Level: LevelFor(testBlocks)}, model: map[uint64]extent.Slot{}})
	}
	return m
}

// drawRange prefers ranges that begin and end near node borders.
func drawRange(t *rapid.T, limit uint64) (first, count uint64) {
	border := rapid.SampledFrom([]uint64{1, Fanout, Fanout * Fanout}).Draw(t, "border")
	first = rapid.Uint64Range(0, limit/border-1).Draw(t, "at") * border
	count = rapid.Uint64Range(1, 3).Draw(t, "n") * border
	first += rapid.Uint64Range(0, 2).Draw(t, "off")
	if first >= limit {
		first = limit - 1
	}
	return first, min(count, limit-first)
}

func (m *machine) draw(t *rapid.T, name string) *tree {
	return m.trees[rapid.IntRange(0, len(m.trees)-1).Draw(t, name)]
}

func (m *machine) set(t *rapid.T) {
	x := m.draw(t, "tree")
	first, count := drawRange(t, testBlocks)
	count = min(count, 700)
	slots := make([]extent.Slot, count)
	for i := range slots {
		slots[i] = m.slot
		m.slot++
		x.model[first+uint64(i)] = slots[i]
	}
	m.extents.Ref(slots)
	if err := m.forest.Set(&x.root, first, slots); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) clear(t *rapid.T) {
	x := m.draw(t, "tree")
	first, count := drawRange(t, testBlocks)
	for b := range x.model {
		if b >= first && b < first+count {
			delete(x.model, b)
		}
	}
	if err := m.forest.Clear(&x.root, first, count); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) copy(t *rapid.T) {
	dst, src := m.draw(t, "dst"), m.draw(t, "src")
	if dst == src {
		t.Skip("a tree is copied from a snapshot, not from itself")
	}
	to, count := drawRange(t, testBlocks)
	from, n := drawRange(t, testBlocks)
	count = min(count, n)
	next := map[uint64]extent.Slot{}
	for b, s := range dst.model {
		if b < to || b >= to+count {
			next[b] = s
		}
	}
	for b, s := range src.model {
		if b >= from && b < from+count {
			next[to+b-from] = s
		}
	}
	dst.model = next
	budget := rapid.IntRange(1, 100).Draw(t, "budget")
	for done := uint64(0); done < count; {
		n, err := m.forest.Copy(&dst.root, to+done, src.root, from+done, count-done, budget)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Fatal("Copy did nothing")
		}
		done += n
	}
}

// snapshot replaces the last tree by a share of part of another.
func (m *machine) snapshot(t *rapid.T) {
	x := m.draw(t, "tree")
	last := m.trees[len(m.trees)-1]
	if x == last {
		t.Skip("a tree is not replaced by its own snapshot")
	}
	first, count := drawRange(t, testBlocks)
	root, err := m.forest.Share(x.root, []Range{{first, count}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.forest.Drop(last.root); err != nil {
		t.Fatal(err)
	}
	last.root, last.model = root, map[uint64]extent.Slot{}
	// Leaves are shared whole, so the model takes whole leaves too.
	lo, hi := first&^(Fanout-1), (first+count+Fanout-1)&^(Fanout-1)
	for b, s := range x.model {
		if b >= lo && b < hi {
			last.model[b] = s
		}
	}
}

func (m *machine) reap(t *rapid.T) {
	if _, err := m.forest.Reap(rapid.IntRange(1, 50).Draw(t, "limit")); err != nil {
		t.Fatal(err)
	}
}

// checkpoint stores all changes in the engine, as the store does.
func (m *machine) checkpoint(t *rapid.T, kv *meta.Mem, clock *pages.Clock) {
	clock.Tick()
	cut := m.forest.Cut()
	var ops []meta.Op
	if err := encodeParts(cut.Parts(), func(op meta.Op) error { ops = append(ops, op); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := kv.Update(ops); err != nil {
		t.Fatal(err)
	}
	cut.Done()
}

func (m *machine) check(t *rapid.T) {
	want := countedExtents{}
	leaves := map[uint64]bool{}
	for i, x := range m.trees {
		var slots [Fanout]extent.Slot
		for b := uint64(0); b < testBlocks; b += Fanout {
			if err := m.forest.Lookup(x.root, b, slots[:]); err != nil {
				t.Fatal(err)
			}
			for k, s := range slots {
				if s != x.model[b+uint64(k)] {
					t.Fatalf("tree %d block %d: slot %d, want %d", i, b+uint64(k), s, x.model[b+uint64(k)])
				}
			}
			leaf, err := m.forest.nodeAt(x.root, b, 0)
			if err != nil {
				t.Fatal(err)
			}
			if leaf != nil && !leaves[leaf.ID()] {
				leaves[leaf.ID()] = true
				want.Ref(leaf.slots[:])
			}
		}
	}
	for more := true; more; {
		var err error
		if more, err = m.forest.Reap(100); err != nil {
			t.Fatal(err)
		}
	}
	if len(want) != len(m.extents) {
		t.Fatalf("%d extents have references, want %d", len(m.extents), len(want))
	}
	for s, n := range want {
		if m.extents[s] != n {
			t.Fatalf("slot %d has %d references, want %d", s, m.extents[s], n)
		}
	}
}

// TestForest_Model applies random operations to a forest and to a map of slots.
func TestForest_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kv := meta.NewMem()
		clock := pages.NewClock()
		m := newMachine(kv, clock)
		t.Repeat(map[string]func(*rapid.T){
			"set": m.set, "clear": m.clear, "copy": m.copy, "snapshot": m.snapshot, "reap": m.reap,
			"checkpoint": func(t *rapid.T) { m.checkpoint(t, kv, clock) },
		})
		m.check(t)
	})
}

func TestForest_DropFreesAll(t *testing.T) {
	kv := meta.NewMem()
	clock := pages.NewClock()
	extents := countedExtents{}
	f := New(Options{KV: kv, Clock: clock, Extents: extents, MaxBytes: 8 << 20})
	a := Root{Level: LevelFor(testBlocks)}
	slots := make([]extent.Slot, Fanout)
	for b := uint64(0); b < testBlocks; b += 16 * Fanout {
		for i := range slots {
			slots[i] = extent.Slot(b + uint64(i) + 1)
		}
		extents.Ref(slots)
		if err := f.Set(&a, b, slots); err != nil {
			t.Fatal(err)
		}
	}
	b, err := f.Share(a, []Range{{0, testBlocks}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Clear(&b, 5, Fanout*Fanout+77); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Root{a, b} {
		if err := f.Drop(r); err != nil {
			t.Fatal(err)
		}
	}
	for more := true; more; {
		if more, err = f.Reap(7); err != nil {
			t.Fatal(err)
		}
	}
	if len(extents) != 0 {
		t.Fatalf("%d extents still have references", len(extents))
	}
	clock.Tick()
	cut := f.Cut()
	err = encodeParts(cut.Parts(), func(op meta.Op) error {
		if op.Value != nil {
			t.Errorf("key %x is still stored", op.Key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNode_EncodeDecode(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n := &node{level: uint8(rng.IntN(MaxLevel + 1))}
		for i := 0; i < Fanout; {
			run := min(1+rng.IntN(100), Fanout-i)
			value, step := extent.Slot(rng.Uint64()>>rng.IntN(64)), extent.Slot(rng.IntN(2))
			if rng.IntN(3) == 0 {
				value, step = 0, 0
			}
			for range run {
				n.slots[i] = value
				value += step
				i++
			}
		}
		got, err := decodeNode(n.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if got.slots != n.slots || got.level != n.level {
			t.Fatal("decoded node differs from the encoded one")
		}
	}
}

// TestLayouts pins the stored form of a node.
func TestLayouts(t *testing.T) {
	n := &node{level: 1}
	for i := range 4 {
		n.slots[10+i] = extent.Slot(100 + i) // ascending
		n.slots[20+i] = 50                   // constant
	}
	const want = "01" + // level
		"28" + // 10 holes
		"11" + "c801" + // 4 ascending from 100
		"18" + // 6 holes
		"12" + "69" + // 4 times 50, which is 53 less than 103
		"a00f" // 488 holes
	if got := hex.EncodeToString(n.Encode()); got != want {
		t.Errorf("node:\ngot  %s\nwant %s", got, want)
	}
}

func TestNode_SequentialLeafSize(t *testing.T) {
	n := &node{}
	for i := range n.slots {
		n.slots[i] = extent.Slot(1_000_000 + i)
	}
	if got := len(n.Encode()); got > 16 {
		t.Errorf("a leaf of one run takes %d bytes, want at most 16", got)
	}
}

func FuzzNode_Decode(f *testing.F) {
	f.Add((&node{}).Encode())
	f.Add([]byte{0, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeNode(b)
		if err != nil {
			return
		}
		again, err := decodeNode(n.Encode())
		if err != nil || again.slots != n.slots {
			t.Fatalf("decoded node differs after another round trip: %v", err)
		}
	})
}

func benchForest(b *testing.B) (*Forest, Root) {
	f := New(Options{KV: meta.NewMem(), Clock: pages.NewClock(), Extents: countedExtents{}, MaxBytes: 64 << 20})
	r := Root{Level: LevelFor(testBlocks)}
	slots := make([]extent.Slot, Fanout)
	for first := uint64(0); first < testBlocks; first += Fanout {
		for i := range slots {
			slots[i] = extent.Slot(first + uint64(i) + 1)
		}
		if err := f.Set(&r, first, slots); err != nil {
			b.Fatal(err)
		}
	}
	return f, r
}

func BenchmarkForest_Lookup(b *testing.B) {
	f, r := benchForest(b)
	var slot [1]extent.Slot
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Lookup(r, rng.Uint64N(testBlocks), slot[:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkForest_SetInPlace(b *testing.B) {
	f, r := benchForest(b)
	slot := [1]extent.Slot{7}
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Set(&r, rng.Uint64N(testBlocks), slot[:]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNode_Encode encodes leaves whose blocks were written in order and at random.
func BenchmarkNode_Encode(b *testing.B) {
	ascending, random := &node{}, &node{}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range Fanout {
		ascending.slots[i] = extent.Slot(1000 + i)
		random.slots[i] = extent.Slot(rng.Uint64N(1 << 24))
	}
	for name, n := range map[string]*node{"ascending": ascending, "random": random} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n.Encode()
			}
		})
	}
}
