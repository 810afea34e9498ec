package peer

import (
	"math"
	"sync"

	"odx/blockdev"
)

// job is what one request reads, and where it goes.
type job struct {
	ranges []blockdev.Range // of the destination, in order
	length int64
	done   bool
}

// nextJob cuts a job of at most piece bytes off ranges. Where a range is cut, it is at a
// multiple of minPiece in the hold, which lies shift bytes before the destination. A job of more
// than maxContent has whole blocks alone, so that each maxContent of it are whole blocks.
func nextJob(missing []blockdev.Range, shift, piece int64) (j *job, rest []blockdev.Range) {
	j = &job{}
	for len(missing) > 0 && j.length < piece && len(j.ranges) < maxJobRanges {
		r := missing[0]
		if (r.Offset-shift)%blockLength != 0 || r.Length%blockLength != 0 {
			if piece = min(piece, maxContent); j.length >= piece {
				break
			}
		}
		if n := piece - j.length; r.Length > n {
			if n -= (r.Offset - shift + n) % minPiece; n <= 0 {
				if j.length > 0 {
					break
				}
				n = minPiece - (r.Offset-shift)%minPiece
			}
			missing[0] = blockdev.Range{Offset: r.Offset + n, Length: r.Length - n}
			r.Length = n
		} else {
			missing = missing[1:]
		}
		j.ranges, j.length = append(j.ranges, r), j.length+r.Length
	}
	return j, missing
}

// filling is a window of a fetch, whose runs were asked for at once, while what is missing of it
// is read.
type filling struct {
	to    []blockdev.Range // of the destination, in order
	moved func(n int64)    // as in FetchOptions

	mu      sync.Mutex       // guards what follows; moved is called with it held
	missing []blockdev.Range // what no job reads yet, in order
	jobs    []*job           // those that read, in order, from the first that is not done on
	done    int64            // bytes of to, contiguous from the start
	past    int64            // bytes of the ranges of to that are done and dropped
}

// next returns the job that reads what comes next.
func (w *filling) next(shift, piece int64) (j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j, w.missing = nextJob(w.missing, shift, piece)
	w.jobs = append(w.jobs, j)
	return j
}

// advance notes that a job is done, if there is one, and counts what is done up to the first
// byte that is not.
func (w *filling) advance(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j != nil {
		j.done = true
	}
	for len(w.jobs) > 0 && w.jobs[0].done {
		w.jobs = w.jobs[1:]
	}
	end := int64(math.MaxInt64)
	switch {
	case len(w.jobs) > 0:
		end = w.jobs[0].ranges[0].Offset
	case len(w.missing) > 0:
		end = w.missing[0].Offset
	}
	for len(w.to) > 0 && w.to[0].End() <= end {
		w.past, w.to = w.past+w.to[0].Length, w.to[1:]
	}
	done := w.past
	if len(w.to) > 0 {
		done += max(end-w.to[0].Offset, 0)
	}
	if w.moved != nil && done > w.done {
		w.moved(done - w.done)
	}
	w.done = done
}
