package backstore

import (
	"fmt"
	"slices"

	"odx/backstore/meta"
)

// Where rows of the metadata are lost, records of the journal can be left that cannot
// be replayed. What the maps say of the blocks that these change is older than what
// was acknowledged last, so no read returns it: those blocks are stale.

// errStale is why a stale block is not read.
var errStale = fmt.Errorf("%w: a later change of it, which the journal has, cannot be applied to what is left", meta.ErrDamaged)

// maxBlocks is more than any volume or file has.
const maxBlocks = MaxVolumeBytes/BlockLength + 1

// span is blocks [first, end) of a tree.
type span struct{ first, end uint64 }

// staleBlocks are those of one tree, in order; no two spans touch. Replay changes
// them, before anybody reads.
type staleBlocks struct{ spans []span }

// touched returns which spans touch or overlap blocks [first, end).
func (l *staleBlocks) touched(first, end uint64) (from, to int) {
	from, _ = slices.BinarySearchFunc(l.spans, first, func(s span, at uint64) int {
		if s.end < at {
			return -1
		}
		return 1
	})
	to = from
	for to < len(l.spans) && l.spans[to].first <= end {
		to++
	}
	return from, to
}

// add makes blocks [first, end) stale.
func (l *staleBlocks) add(first, end uint64) {
	if first >= end {
		return
	}
	from, to := l.touched(first, end)
	if from < to {
		first, end = min(first, l.spans[from].first), max(end, l.spans[to-1].end)
	}
	l.spans = slices.Replace(l.spans, from, to, span{first, end})
}

// remove: blocks [first, end) are what they were last.
func (l *staleBlocks) remove(first, end uint64) {
	if first >= end || len(l.spans) == 0 {
		return
	}
	from, to := l.touched(first, end)
	var left []span
	for _, s := range l.spans[from:to] {
		if s.first < first {
			left = append(left, span{s.first, min(s.end, first)})
		}
		if s.end > end {
			left = append(left, span{max(s.first, end), s.end})
		}
	}
	l.spans = slices.Replace(l.spans, from, to, left...)
}

// clone returns a list of its own with the same blocks.
func (l *staleBlocks) clone() staleBlocks { return staleBlocks{slices.Clone(l.spans)} }

// copyFrom makes those of blocks [to, to+count) stale that are in src from block from on.
func (l *staleBlocks) copyFrom(src *staleBlocks, to, from, count uint64) {
	for _, s := range src.spans {
		if lo, hi := max(s.first, from), min(s.end, from+count); lo < hi {
			l.add(lo-from+to, hi-from+to)
		}
	}
}

// check returns an error if one of blocks [first, first+count) is stale.
func (l *staleBlocks) check(first, count uint64) error {
	if len(l.spans) == 0 {
		return nil
	}
	return l.find(first, count)
}

// find is check where blocks are stale; so check is inlined.
func (l *staleBlocks) find(first, count uint64) error {
	if from, to := l.touched(first+1, first+count-1); from < to {
		return errStale
	}
	return nil
}
