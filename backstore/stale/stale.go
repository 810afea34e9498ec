// Package stale lists the blocks of a map that are older than what was acknowledged last.
//
// Where rows of the metadata are lost, records of the journal can be left that cannot
// be replayed. What the maps say of the blocks that these change is older than what
// was acknowledged last, so no read returns it: those blocks are stale.
package stale

import (
	"fmt"
	"iter"
	"slices"

	"odx/backstore/meta"
)

// Err is why a stale block is not read.
var Err = fmt.Errorf("%w: a later change of it, which the journal has, cannot be applied to what is left", meta.ErrDamaged)

// span is blocks [first, end) of a tree.
type span struct{ first, end uint64 }

// Blocks are the stale ones of one tree, in order; no two spans touch. Replay changes
// them, before anything reads. The zero value has none.
type Blocks struct{ spans []span }

// touched returns which spans touch or overlap blocks [first, end).
func (l *Blocks) touched(first, end uint64) (from, to int) {
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

// Add makes blocks [first, end) stale.
func (l *Blocks) Add(first, end uint64) {
	if first >= end {
		return
	}
	from, to := l.touched(first, end)
	if from < to {
		first, end = min(first, l.spans[from].first), max(end, l.spans[to-1].end)
	}
	l.spans = slices.Replace(l.spans, from, to, span{first, end})
}

// Remove makes blocks [first, end) what they were last.
func (l *Blocks) Remove(first, end uint64) {
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

// Spans returns the first block of each run of stale blocks, and the one after its last.
func (l *Blocks) Spans() iter.Seq2[uint64, uint64] {
	return func(yield func(first, end uint64) bool) {
		for _, s := range l.spans {
			if !yield(s.first, s.end) {
				return
			}
		}
	}
}

// Clone returns a list of its own with the same blocks.
func (l *Blocks) Clone() Blocks { return Blocks{slices.Clone(l.spans)} }

// CopyFrom makes those of blocks [to, to+count) stale that are in src from block from on.
func (l *Blocks) CopyFrom(src *Blocks, to, from, count uint64) {
	for _, s := range src.spans {
		if lo, hi := max(s.first, from), min(s.end, from+count); lo < hi {
			l.Add(lo-from+to, hi-from+to)
		}
	}
}

// Check returns an error if one of blocks [first, first+count) is stale.
func (l *Blocks) Check(first, count uint64) error {
	if len(l.spans) == 0 {
		return nil
	}
	return l.find(first, count)
}

// find is Check where blocks are stale; so Check is inlined.
func (l *Blocks) find(first, count uint64) error {
	if from, to := l.touched(first+1, first+count-1); from < to {
		return Err
	}
	return nil
}
