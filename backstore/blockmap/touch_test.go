package blockmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/segment"
)

// failingReader fails every read while it is broken.
type failingReader struct {
	*meta.Mem
	broken bool
	reads  int // if not 0, reads until broken is set
}

var errBroken = errors.New("broken")

func (r *failingReader) Get(key []byte) ([]byte, error) {
	if r.broken {
		return nil, fmt.Errorf("row %q: %w", key, errBroken)
	}
	if r.reads > 0 {
		r.reads--
		r.broken = r.reads == 0
	}
	return r.Mem.Get(key)
}

// touched is a forest over a real table of extents.
type touched struct {
	t       *testing.T
	rng     *rand.Rand
	rows    *failingReader
	clock   *pages.Clock
	forest  *Forest
	extents *extent.Table
	usage   *extent.Usage
	trees   []Root
}

const touchedBlocks = 3*Fanout + 100

// reopen stores all changes and reopens the forest with empty caches.
func (m *touched) reopen() {
	m.t.Helper()
	next, nextNode, dropped := extent.ID(1), uint64(1), []uint64(nil)
	if m.forest != nil {
		m.clock.Tick()
		cut, xcut, ops := m.forest.Cut(), m.extents.Cut(), m.usage.Cut()
		add := func(op meta.Op) error { ops = append(ops, op); return nil }
		m.ok(errors.Join(encodeParts(cut.Parts(), add), encodeParts(xcut.Parts(), add), m.rows.Update(ops)))
		next, nextNode, dropped = m.extents.Next(), cut.Next, cut.Dropped
	}
	m.clock = pages.NewClock()
	var err error
	m.usage, err = extent.LoadUsage(m.rows)
	m.ok(err)
	m.extents = extent.NewTable(extent.Options{KV: m.rows, Clock: m.clock, Unit: 1, MaxBytes: 64 << 20, Next: next, Usage: m.usage})
	m.forest = New(Options{KV: m.rows, Clock: m.clock, Extents: m.extents, MaxBytes: 64 << 20, Next: nextNode, Dropped: dropped})
}

func (m *touched) ok(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// change calls touch, then change with a reader that fails every read.
func (m *touched) change(what string, touch, change func() error) {
	m.t.Helper()
	m.reopen()
	if err := touch(); err != nil {
		m.t.Fatalf("touch for %s: %v", what, err)
	}
	m.rows.broken = true
	err := change()
	m.rows.broken = false
	if err != nil {
		m.t.Fatalf("%s reads a row that touch did not: %v", what, err)
	}
}

func (m *touched) set(r *Root, first uint64, n int) {
	var id extent.ID
	m.change(fmt.Sprintf("set of %d+%d", first, n), func() error {
		id = m.extents.Allocate(n)
		return errors.Join(m.extents.TouchNew(id, n), m.forest.TouchSet(*r, first, uint64(n)))
	}, func() error {
		slots := make([]extent.Slot, n)
		for i := range slots {
			x := extent.Extent{Addr: segment.Addr{Segment: 1, Block: uint32(id) + uint32(i)}, Blocks: 1}
			if err := m.extents.Create(id+extent.ID(i), &x); err != nil {
				return err
			}
			slots[i] = m.extents.Slot(id+extent.ID(i), 0)
		}
		return m.forest.Set(r, first, slots)
	})
}

func (m *touched) span() (first, n uint64) {
	first = m.rng.Uint64N(touchedBlocks)
	if m.rng.IntN(3) == 0 {
		first &^= Fanout - 1
	}
	return first, 1 + m.rng.Uint64N(touchedBlocks-first)
}

func (m *touched) step() {
	r := &m.trees[m.rng.IntN(len(m.trees))]
	first, n := m.span()
	switch m.rng.IntN(6) {
	case 0, 1:
		m.set(r, first, int(min(n, 256)))
	case 2:
		m.change("clear", func() error { return m.forest.TouchClear(*r, first, n) }, func() error { return m.forest.Clear(r, first, n) })
	case 3:
		var made Root
		ranges := []Range{{first, n}}
		m.change("share", func() error { return m.forest.TouchShare(*r, ranges) }, func() (err error) {
			made, err = m.forest.Share(*r, ranges)
			return err
		})
		m.trees = append(m.trees, made)
	case 4:
		m.copy(r, m.trees[m.rng.IntN(len(m.trees))], first, n)
	case 5:
		if len(m.trees) > 4 {
			old := m.trees[0]
			m.trees = m.trees[1:]
			m.change("drop", func() error { return m.forest.TouchDrop(old) }, func() error { return m.forest.Drop(old) })
		}
		for {
			more, err := m.forest.Reap(1)
			m.ok(err)
			if !more {
				break
			}
		}
	}
}

// copy copies with a reader that fails at once, after one read, after two, and so on.
// Each call continues where the previous one ended: after its last complete step.
func (m *touched) copy(dst *Root, src Root, first, n uint64) {
	to := min(first, touchedBlocks-n)
	if m.rng.IntN(2) == 0 {
		to, n = first&^(Fanout-1), min(n, touchedBlocks-first)
	}
	if dst.Node == src.Node {
		return // a tree is copied from a snapshot, not from itself
	}
	want := m.slots(*dst)
	copy(want[to:to+n], m.slots(src)[first:])
	for reads := 0; n > 0; reads++ {
		before := m.slots(*dst)
		m.reopen()
		m.rows.broken, m.rows.reads = reads == 0, reads
		done, err := m.forest.Copy(dst, to, src, first, n, 300)
		m.rows.broken, m.rows.reads = false, 0
		if step := (*StepError)(nil); err != nil && !errors.As(err, &step) {
			m.t.Fatalf("copy after %d reads: %v", reads, err)
		}
		copy(before[to:to+done], want[to:])
		if !slices.Equal(m.slots(*dst), before) {
			m.t.Fatalf("copy after %d reads: %d blocks copied, and other blocks changed", reads, done)
		}
		to, first, n = to+done, first+done, n-done
	}
	if !slices.Equal(m.slots(*dst), want) {
		m.t.Fatal("copied blocks differ from the source")
	}
}

// slots returns the mappings of a tree.
func (m *touched) slots(r Root) []extent.Slot {
	m.t.Helper()
	all := make([]extent.Slot, touchedBlocks)
	m.ok(m.forest.Lookup(r, 0, all))
	return all
}

// audit verifies the stored rows.
func (m *touched) audit() {
	m.t.Helper()
	m.reopen()
	report := func(finding string) { m.t.Error(finding) }
	m.ok(Audit(m.t.Context(), m.rows, m.trees, m.forest.dropped, report))
	m.ok(extent.Audit(m.t.Context(), extent.AuditOptions{
		KV: m.rows, Unit: 1, Next: m.extents.Next(),
		EachLeaf: func(fn func([]extent.Slot)) error { return EachLeaf(m.t.Context(), m.rows, fn) },
		Visit:    func(extent.ID, *extent.Extent) {},
	}, report))
}

// TestForest_Touch applies random changes. Each reads all its rows before it changes
// anything.
func TestForest_Touch(t *testing.T) {
	for seed := range uint64(8) {
		m := &touched{t: t, rng: rand.New(rand.NewPCG(seed, 1)), rows: &failingReader{Mem: meta.NewMem()}}
		m.reopen()
		m.trees = []Root{{Level: 1}, {Level: 1}}
		for i := range 60 {
			m.step()
			if i%20 == 0 {
				m.audit()
			}
		}
		m.audit()
	}
}
