package vhdxfile

import "math/bits"

// space notes which parts of a file are used, one bit for 1 MiB.
type space struct {
	used []uint64
	// full is a number of bits at the start that are all set.
	full int64
}

// units returns the MiB that a range of bytes touches.
func units(offset, length int64) (from, to int64) {
	return offset / mib, (offset + length + mib - 1) / mib
}

// take notes that a range of bytes is used, and reports whether none of it was.
func (s *space) take(offset, length int64) bool {
	from, to := units(offset, length)
	if words := (to + 63) / 64; words > int64(len(s.used)) {
		// Doubled, so that a file that grows block by block is not copied each time.
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

// give notes that a range of bytes is not used any more.
func (s *space) give(offset, length int64) {
	from, to := units(offset, length)
	s.full = min(s.full, from)
	for to = min(to, int64(len(s.used))*64); from < to; {
		mask, next := maskOf(from, to)
		s.used[from/64] &^= mask
		from = next
	}
}

// maskOf returns the bits of [from, to) in the word of from, and where the next
// word begins, or to.
func maskOf(from, to int64) (mask uint64, next int64) {
	next = min(to, (from/64+1)*64)
	mask = ^uint64(0) << (from % 64)
	if next%64 != 0 {
		mask &= 1<<(next%64) - 1
	}
	return mask, next
}

// next returns the first bit from i on that is set, or is not set; where there is
// none, a bit behind all that are noted.
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

// find takes the first free range of length bytes at a multiple of align, and
// returns where it is.
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

// unused returns how many bytes below size are not used.
func (s *space) unused(size int64) int64 {
	used := int64(0)
	for _, word := range s.used {
		used += int64(bits.OnesCount64(word))
	}
	return max(0, size-used*mib)
}
