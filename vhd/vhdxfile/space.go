package vhdxfile

import "math/bits"

// space tracks the used MiB of a file in a bitmap.
type space struct {
	used []uint64
	// full is a number of leading bits that are all set.
	full int64
}

// mibRange returns the range of MiB that a range of bytes overlaps.
func mibRange(offset, length int64) (from, to int64) {
	return offset / mib, (offset + length + mib - 1) / mib
}

// take marks a range of bytes used, and reports whether none of it was.
func (s *space) take(offset, length int64) bool {
	from, to := mibRange(offset, length)
	if words := (to + 63) / 64; words > int64(len(s.used)) {
		// Doubled, so that a growing file does not copy it for each block.
		s.used = append(s.used, make([]uint64, max(words-int64(len(s.used)), int64(len(s.used))))...)
	}
	free := true
	for from < to {
		mask, next := maskOf(from, to)
		free = free && s.used[from/64]&mask == 0
		s.used[from/64] |= mask
		from = next
	}
	return free
}

// release marks a range of bytes unused.
func (s *space) release(offset, length int64) {
	from, to := mibRange(offset, length)
	s.full = min(s.full, from)
	for to = min(to, int64(len(s.used))*64); from < to; {
		mask, next := maskOf(from, to)
		s.used[from/64] &^= mask
		from = next
	}
}

// maskOf returns the bits of [from, to) in the word of from, and the start of the next
// word, or to.
func maskOf(from, to int64) (mask uint64, next int64) {
	next = min(to, (from/64+1)*64)
	mask = ^uint64(0) << (from % 64)
	if next%64 != 0 {
		mask &= 1<<(next%64) - 1
	}
	return mask, next
}

// next returns the first bit from i that is set, or not set. If there is none, it
// returns a bit after all tracked ones.
func (s *space) next(i int64, set bool) int64 {
	for end := int64(len(s.used)) * 64; i < end; {
		word := s.used[i/64]
		if !set {
			word = ^word
		}
		if word &= ^uint64(0) << (i % 64); word != 0 {
			return i/64*64 + int64(bits.TrailingZeros64(word))
		}
		i = (i/64 + 1) * 64
	}
	if set {
		return max(i, maxFile/mib*2)
	}
	return i
}

// find takes the first free range of length bytes at a multiple of align, and returns
// its offset.
func (s *space) find(length, align int64) int64 {
	n, step := (length+mib-1)/mib, max(align/mib, 1)
	s.full = s.next(s.full, false)
	at := roundUp(s.full, step)
	for {
		used := s.next(at, true)
		if used >= at+n {
			s.take(at*mib, n*mib)
			return at * mib
		}
		at = roundUp(s.next(used, false), step)
	}
}

// unused returns the number of unused bytes below size.
func (s *space) unused(size int64) int64 {
	used := int64(0)
	for _, word := range s.used {
		used += int64(bits.OnesCount64(word))
	}
	return max(0, size-used*mib)
}
