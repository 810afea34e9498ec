package blockmap

// Run is a range of blocks that are all mapped or all holes.
type Run struct {
	First, Count uint64
	Mapped       bool
}

// Runs calls fn with the runs of blocks [first, first+count), in order, until fn
// returns false or nodes nodes are read. It returns the first block not passed to fn.
// Adjacent runs can be of one kind.
func (f *Forest) Runs(r Root, first, count uint64, nodes int, fn func(Run) bool) (next uint64, err error) {
	w := runWalk{f: f, lo: first, hi: first + count, nodes: nodes, fn: fn}
	if err := w.walk(r.Node, r.Level, 0); err != nil {
		return w.lo, err
	}
	if beyond := max(w.lo, r.Blocks()); !w.stop && beyond < w.hi {
		w.emit(beyond, w.hi, false)
	}
	return w.lo, nil
}

// runWalk walks blocks [lo, hi) of a tree in order; lo advances past emitted runs.
type runWalk struct {
	f      *Forest
	lo, hi uint64
	nodes  int
	stop   bool
	fn     func(Run) bool
}

func (w *runWalk) emit(lo, hi uint64, mapped bool) {
	lo, hi = max(lo, w.lo), min(hi, w.hi)
	if lo >= hi || w.stop {
		return
	}
	w.lo = hi
	if !w.fn(Run{First: lo, Count: hi - lo, Mapped: mapped}) {
		w.stop = true
	}
}

func (w *runWalk) walk(id uint64, level uint8, base uint64) error {
	if w.stop || base >= w.hi || base+span(level) <= w.lo {
		return nil
	}
	if id == 0 {
		w.emit(base, base+span(level), false)
		return nil
	}
	if w.nodes--; w.nodes < 0 {
		w.stop = true
		return nil
	}
	n, err := w.f.node(id, level)
	if err != nil {
		return err
	}
	if level == 0 {
		for i := 0; i < Fanout; {
			k := i + 1
			for k < Fanout && (n.slots[k] == 0) == (n.slots[i] == 0) {
				k++
			}
			w.emit(base+uint64(i), base+uint64(k), n.slots[i] != 0)
			i = k
		}
		return nil
	}
	sub := span(level - 1)
	for i, child := range n.slots {
		if err := w.walk(uint64(child), level-1, base+uint64(i)*sub); err != nil {
			return err
		}
	}
	return nil
}
