package peer

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"odx/backstore"
	"odx/blockdev"
	"odx/quota"
)

// fetchWindow is how many bytes the runs that are asked for at once cover: 64 Ki blocks, whose
// names take less than 1 MiB of memory.
const fetchWindow = 256 << 20

// maxJobRanges bounds the ranges of a request for bytes.
const maxJobRanges = 512

// FetchOptions are the choices of Fetch. The zero value is valid.
type FetchOptions struct {
	// Moved, if set, is called with how many more bytes are done, contiguous from the start, after
	// each piece of at most 4 MiB that adds to them. Calls do not overlap.
	Moved func(n int64)
	// Pace, if set, waits until n bytes more may be read.
	Pace func(ctx context.Context, n int64) error
	// Hash has FetchRanges look for what has not come from there before by fingerprints, for which
	// the other server gets the key of this store. Without deduplication it does nothing.
	Hash bool
	// Adopt has Fetch map extents of a store of the same pool where they lie, instead of reading
	// them: the destination then depends on that store until its cleaner has moved them.
	Adopt bool
	// Memory, if set, bounds the buffers of all fetches together; Client is whose they are.
	Memory *quota.Quota
	Client string
}

// Fetch makes ranges of dst equal to the bytes of h from offset on. Where dst is a volume of
// an extent store, blocks that it has had from the store of h are mapped; the rest is read,
// several pieces at once, verified, and written. It stops where ctx asks it to
// (blockdev.Late). It returns how many bytes are done, contiguous from the start of the first
// range; with an error, those done before it. The caller has checked the ranges.
//
// Bytes that were written behind the first one that was not are known, and not read again by
// a call that continues.
func Fetch(ctx context.Context, h Hold, offset int64, dst blockdev.Volume, ranges []blockdev.Range, o FetchOptions) (done int64, err error) {
	f := fetch{ctx: ctx, h: h, dst: dst, o: o}
	f.known, _ = dst.(*backstore.Volume)
	defer f.endAdoption()
	for _, r := range ranges {
		n, err := f.fill(offset+done, r)
		done += n
		if err != nil || n < r.Length {
			return done, err
		}
	}
	return done, nil
}

// FetchRanges is Fetch of many ranges, which are in order, to the same offsets: the runs of many
// of them are asked for at once. It changes ranges.
func FetchRanges(ctx context.Context, h Hold, dst blockdev.Volume, ranges []blockdev.Range, o FetchOptions) (done int64, err error) {
	f := fetch{ctx: ctx, h: h, dst: dst, o: o}
	f.known, _ = dst.(*backstore.Volume)
	for len(ranges) > 0 && (done == 0 || !blockdev.Late(ctx)) {
		var batch []blockdev.Range
		var length int64
		for len(ranges) > 0 && length < fetchWindow && len(batch) < MaxRanges {
			r := ranges[0]
			if n := fetchWindow - length; r.Length > n {
				ranges[0] = blockdev.Range{Offset: r.Offset + n, Length: r.Length - n}
				r.Length = n
			} else {
				ranges = ranges[1:]
			}
			batch, length = append(batch, r), length+r.Length
		}
		n, err := f.window(batch, 0)
		done += n
		if err != nil || n < length {
			return done, err
		}
	}
	return done, nil
}

// fetch is a Fetch in progress.
type fetch struct {
	ctx   context.Context
	h     Hold
	dst   blockdev.Volume
	known *backstore.Volume // dst; nil if it is in no extent store
	o     FetchOptions

	runs  []backstore.Run // of the window
	slots []uint64
	sums  []uint32

	adoption adoption
}

// fill fills r from byte src of the hold on.
func (f *fetch) fill(src int64, r blockdev.Range) (done int64, err error) {
	for done < r.Length && (done == 0 || !blockdev.Late(f.ctx)) {
		n := min(r.Length-done, fetchWindow)
		if m, all, ok, err := f.adopt(src+done, blockdev.Range{Offset: r.Offset + done, Length: n}); ok || err != nil {
			if done += m; err != nil || !all {
				return done, err
			}
			continue
		}
		m, err := f.window([]blockdev.Range{{Offset: r.Offset + done, Length: n}}, r.Offset-src)
		done += m
		if err != nil || m < n {
			return done, err
		}
	}
	return done, nil
}

// window fills ranges of the destination, which lie shift bytes behind those of the hold, and
// returns how many bytes are done, from the first one on.
func (f *fetch) window(to []blockdev.Range, shift int64) (int64, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	if err := f.readRuns(to, shift); err != nil {
		return 0, err
	}
	missing, err := f.mapRuns(shift)
	if err != nil {
		return 0, err
	}
	if f.o.Hash && f.known != nil && shift == 0 {
		if missing, err = f.mapAlike(missing); err != nil {
			return 0, err
		}
	}
	f.mapped(sum(to) - sum(missing))
	w := &filling{to: to, missing: missing, moved: f.o.Moved}
	w.advance(nil) // by what was here
	err = f.read(w, shift)
	return w.done, err
}

func sum(ranges []blockdev.Range) (n int64) {
	for _, r := range ranges {
		n += r.Length
	}
	return n
}

// mapped counts bytes that were here.
func (f *fetch) mapped(n int64) {
	if h, ok := f.h.(*remoteHold); ok {
		h.peer.numbers.mapped.Add(n)
	}
}

// readRuns reads the runs of a window.
func (f *fetch) readRuns(to []blockdev.Range, shift int64) error {
	f.runs, f.slots, f.sums = f.runs[:0], f.slots[:0], f.sums[:0]
	if f.slots == nil {
		blocks := sum(to)/blockLength + 1
		f.slots, f.sums = make([]uint64, 0, blocks), make([]uint32, 0, blocks)
	}
	keep := func(r backstore.Run) error {
		at := len(f.slots)
		f.slots, f.sums = append(f.slots, r.Slots...), append(f.sums, r.CRC...)
		r.Slots, r.CRC = f.slots[at:len(f.slots):len(f.slots)], f.sums[at:len(f.sums):len(f.sums)]
		f.runs = append(f.runs, r)
		return nil
	}
	if len(to) == 1 {
		return f.h.Runs(f.ctx, to[0].Offset-shift, to[0].Length, keep)
	}
	from := make([]blockdev.Range, len(to))
	for i, r := range to {
		from[i] = blockdev.Range{Offset: r.Offset - shift, Length: r.Length}
	}
	return f.h.RunsOf(f.ctx, from, keep)
}

// mapRuns maps the runs, as far as they are known, and returns what is missing, in bytes of
// the destination.
func (f *fetch) mapRuns(shift int64) (missing []blockdev.Range, err error) {
	if f.known == nil {
		return f.unmapHoles(shift)
	}
	for at := 0; at < len(f.runs); {
		end := at + 1 // of what follows without a gap
		for end < len(f.runs) && f.runs[end].Off == f.runs[end-1].Off+f.runs[end-1].Length {
			end++
		}
		lacks, err := f.known.MapKnown(f.ctx, f.h.Store(), f.runs[at].Off+shift, f.runs[at:end])
		if err != nil {
			return nil, err
		}
		missing, at = append(missing, lacks...), end
	}
	return missing, nil
}

// unmapHoles is mapRuns for a destination that knows no blocks, and may want whole logical
// blocks: holes are unmapped as far as they are whole blocks of the store here and there, and
// what is missing between two of them is one range.
func (f *fetch) unmapHoles(shift int64) (missing []blockdev.Range, err error) {
	lack := func(off, end int64) {
		if n := len(missing); n > 0 && missing[n-1].End() == off {
			missing[n-1].Length += end - off
		} else if off < end {
			missing = append(missing, blockdev.Range{Offset: off, Length: end - off})
		}
	}
	for _, r := range f.runs {
		from, end := r.Off+shift, r.Off+r.Length+shift
		first, last := (from+blockLength-1)/blockLength*blockLength, end/blockLength*blockLength
		if !r.Hole || shift%blockLength != 0 || first >= last {
			lack(from, end)
			continue
		}
		lack(from, first)
		if err := f.dst.Unmap(f.ctx, first, last-first); err != nil {
			return nil, err
		}
		lack(last, end)
	}
	return missing, nil
}

// read reads what is missing of a window, which lies shift bytes behind the hold.
func (f *fetch) read(w *filling, shift int64) error {
	ctx, stop := context.WithCancelCause(f.ctx)
	defer stop(nil)
	var running sync.WaitGroup
	free := make(chan struct{}, readers)
	for first := true; len(w.missing) > 0 && ctx.Err() == nil && (first || !blockdev.Late(f.ctx)); first = false {
		piece, parallel := f.pace()
		if parallel == 1 {
			running.Wait()
		}
		j := w.next(shift, piece)
		free <- struct{}{}
		if err := f.take(ctx); err != nil {
			stop(err)
			break
		}
		running.Go(func() {
			defer func() { <-free }()
			defer f.give()
			if err := f.run(ctx, j, shift); err != nil {
				stop(err) // the first error counts
				return
			}
			w.advance(j)
		})
	}
	running.Wait()
	err := f.ctx.Err()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// pace returns how much to read at once.
func (f *fetch) pace() (piece int64, parallel int) {
	if h, ok := f.h.(*remoteHold); ok {
		return h.peer.rate.next()
	}
	return maxContent, readers
}

// take takes the memory of a job before the time is over.
func (f *fetch) take(ctx context.Context) error {
	if f.o.Memory == nil {
		return nil
	}
	return f.takeBytes(ctx, maxContent)
}

// takeBytes is take of n bytes, where memory is bounded.
func (f *fetch) takeBytes(ctx context.Context, n int64) error {
	patient, cancel := blockdev.BeforeLate(ctx)
	defer cancel()
	if err := f.o.Memory.Take(patient, f.o.Client, n); err != nil {
		return cmp.Or(ctx.Err(), fmt.Errorf("%w: copies use all of the memory", blockdev.ErrBusy))
	}
	return nil
}

func (f *fetch) give() {
	if f.o.Memory != nil {
		f.o.Memory.Release(f.o.Client, maxContent)
	}
}

// run reads the bytes of a job and writes them.
func (f *fetch) run(ctx context.Context, j *job, shift int64) error {
	if f.o.Pace != nil {
		if err := f.o.Pace(ctx, j.length); err != nil {
			return err
		}
	}
	buf := buffers.Get().(*[maxContent]byte)
	defer buffers.Put(buf)
	from := make([]blockdev.Range, len(j.ranges))
	for i, r := range j.ranges {
		from[i] = blockdev.Range{Offset: r.Offset - shift, Length: r.Length}
	}
	return f.readJob(ctx, from, buf, func(p []byte) error {
		blockdev.CountCopied(f.ctx, int64(len(p)))
		for len(p) > 0 {
			r := from[0]
			r.Length = min(r.Length, int64(len(p)))
			if from[0] = behind(from[0], r.Length); from[0].Length == 0 {
				from = from[1:]
			}
			// With the context of the caller: nothing is written after its command was aborted.
			if err := f.write(p[:r.Length], r.Offset+shift, r); err != nil {
				return err
			}
			p = p[r.Length:]
		}
		return nil
	})
}

// behind returns what follows the first n bytes of r.
func behind(r blockdev.Range, n int64) blockdev.Range {
	return blockdev.Range{Offset: r.Offset + n, Length: r.Length - n}
}

// readJob reads ranges of the hold, and calls each with what fills buf, in order.
func (f *fetch) readJob(ctx context.Context, from []blockdev.Range, buf *[maxContent]byte, each func(p []byte) error) error {
	h, ok := f.h.(*remoteHold)
	if !ok {
		p := buf[:sum(from)]
		if err := f.h.ReadRanges(ctx, p, from); err != nil {
			return err
		}
		return each(p)
	}
	checked := true
	for _, r := range from {
		for _, run := range partOf(f.runs, r) {
			checked = checked && run.Named()
		}
	}
	return h.stream(ctx, from, buf, checked, each)
}

// write writes the bytes of a range of the hold to byte to of the destination.
func (f *fetch) write(p []byte, to int64, from blockdev.Range) error {
	runs := partOf(f.runs, from)
	if f.known != nil {
		return f.known.WriteKnown(f.ctx, f.h.Store(), p, to, runs)
	}
	if err := verify(p, runs); err != nil {
		return err
	}
	return f.dst.WriteAt(f.ctx, p, to)
}

// verify compares bytes with the checksums of their runs.
func verify(p []byte, runs []backstore.Run) error {
	for _, r := range runs {
		for k, want := range r.CRC {
			if crc32.Checksum(p[k*blockLength:(k+1)*blockLength], castagnoli) != want {
				return fmt.Errorf("%w: block at byte %d of what a peer sent: checksum mismatch", blockdev.ErrCorrupt, r.Off+int64(k)*blockLength)
			}
		}
		p = p[r.Length:]
	}
	return nil
}

// partOf returns what runs, which follow each other, have in a range, which cuts no block.
func partOf(runs []backstore.Run, part blockdev.Range) []backstore.Run {
	i, _ := slices.BinarySearchFunc(runs, part.Offset, func(r backstore.Run, off int64) int {
		return cmp.Compare(r.Off+r.Length, off+1) // the first one that ends behind off
	})
	var out []backstore.Run
	for ; i < len(runs) && runs[i].Off < part.End(); i++ {
		r := runs[i]
		lo, hi := max(r.Off, part.Offset), min(r.Off+r.Length, part.End())
		if r.Named() {
			a, b := (lo-r.Off)/blockLength, (hi-r.Off)/blockLength
			r.Slots, r.CRC = r.Slots[a:b], r.CRC[a:b]
		}
		r.Off, r.Length = lo, hi-lo
		out = append(out, r)
	}
	return out
}
