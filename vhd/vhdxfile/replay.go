package vhdxfile

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sort"

	"odx/blockdev"
	"odx/vhd/disk"
)

// update is an update of a log entry: a sector of data, or zeros. Offsets and lengths
// are in bytes. The data stays in the log, which may have up to 1 GiB.
type update struct {
	offset, length int64
	// sector is the offset of the data sector in the file, 0 for zeros. The descriptor
	// has its first eight and last four bytes.
	sector int64
	lead   [8]byte
	trail  [4]byte
}

func (u update) end() int64 { return u.offset + u.length }

// maxUpdates bounds the memory of a log's updates. A log of 1 GiB has 262144 data
// sectors; further updates are zeros, and no program writes that many.
const maxUpdates = 1 << 20

// readLog returns the pending updates of a file's log, without overlaps, and the length
// of the file in bytes after the replay.
func readLog(ctx context.Context, v *view, h header) (updates []update, size int64, err error) {
	if h.log == (disk.GUID{}) {
		return nil, v.size, nil
	}
	r := newRing(v, h)
	sequence, err := r.active(ctx)
	switch {
	case err != nil:
		return nil, 0, err
	case r.budget < 0:
		return nil, 0, bad("log entries overlap")
	case len(sequence) == 0 && !r.damaged:
		// Some programs refer to the log in the header before they write its first
		// entry, sector by sector. This is the state after a crash: MS-VHDX 2.3.3 would
		// refuse the file, but none of it has been changed yet.
		return nil, v.size, nil
	case len(sequence) == 0:
		return nil, 0, bad("log is damaged: in use, but without a valid sequence of entries")
	}
	head := sequence[len(sequence)-1]
	if head.flushed > uint64(v.size) {
		return nil, 0, bad("file was truncated: it has %d bytes, but had %d when its log was written", v.size, head.flushed)
	}
	if head.last > maxFile {
		return nil, 0, bad("log requires a file of %d bytes", head.last)
	}
	size = max(v.size, int64(head.last))
	for _, e := range sequence {
		err := r.updates(ctx, e, func(u update) error {
			size = max(size, u.end())
			if len(updates) == maxUpdates {
				return bad("log has more than %d updates", maxUpdates)
			}
			updates = append(updates, u)
			return checkUpdate(u, h)
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return mergeUpdates(updates), size, nil
}

// checkUpdate returns an error if an update is not allowed in the log: it must not
// change the headers or the log itself. It may extend the file.
func checkUpdate(u update, h header) error {
	log := region{int64(h.logOffset), int64(h.logLength)}
	switch {
	case u.end() > maxFile:
		return bad("log requires a file of %d bytes", u.end())
	case u.length > 0 && (u.offset < regionTableAt(0) || u.offset < log.offset+log.length && log.offset < u.end()):
		return bad("log has an update at %d, which does not go through the log", u.offset)
	}
	return nil
}

// mergeUpdates returns the combined effect of a sequence of updates as updates without
// overlaps, sorted by offset.
func mergeUpdates(updates []update) []update {
	byOffset, borders := make([]int, 0, len(updates)), make([]int64, 0, 2*len(updates))
	for i, u := range updates {
		if u.length > 0 {
			byOffset, borders = append(byOffset, i), append(borders, u.offset, u.end())
		}
	}
	slices.SortFunc(byOffset, func(a, b int) int { return cmp.Compare(updates[a].offset, updates[b].offset) })
	slices.Sort(borders)
	borders = slices.Compact(borders)
	var open latest // updates that cross the boundary
	var result []update
	for n, at := range borders {
		for len(byOffset) > 0 && updates[byOffset[0]].offset == at {
			heap.Push(&open, byOffset[0])
			byOffset = byOffset[1:]
		}
		for len(open) > 0 && updates[open[0]].end() <= at {
			heap.Pop(&open)
		}
		if len(open) == 0 {
			continue
		}
		// The last one applies up to the next boundary. Data is one sector, and
		// boundaries are multiples of sectors, so it is complete.
		u := updates[open[0]]
		u.offset, u.length = at, borders[n+1]-at
		if k := len(result) - 1; k >= 0 && u.sector == 0 && result[k].sector == 0 && result[k].end() == at {
			result[k].length += u.length
		} else {
			result = append(result, u)
		}
	}
	return result
}

// latest is a max-heap of indexes.
type latest []int

func (h latest) Len() int           { return len(h) }
func (h latest) Less(i, j int) bool { return h[i] > h[j] }
func (h latest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *latest) Push(x any)        { *h = append(*h, x.(int)) }
func (h *latest) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// during returns the updates that overlap a range.
func during(updates []update, off, length int64) []update {
	from := sort.Search(len(updates), func(i int) bool { return updates[i].end() > off })
	to := from
	for to < len(updates) && updates[to].offset < off+length {
		to++
	}
	return updates[from:to]
}

// read copies the contents of an update to p, which represents the file from offset off.
func (u update) read(ctx context.Context, r blockdev.Reader, p []byte, off int64) error {
	from, to := max(off, u.offset), min(off+int64(len(p)), u.end())
	if u.sector == 0 {
		clear(p[from-off : to-off])
		return nil
	}
	data := make([]byte, sectorLength)
	if err := r.ReadAt(ctx, data, u.sector); err != nil {
		return fmt.Errorf("read the log at %d: %w", u.sector, err)
	}
	copy(data, u.lead[:])
	copy(data[sectorLength-len(u.trail):], u.trail[:])
	copy(p[from-off:to-off], data[from-u.offset:])
	return nil
}

// changesPayload reports whether replaying the log would change the contents of a
// payload block.
func (f *File) changesPayload(ctx context.Context) (bool, error) {
	if len(f.view.log) == 0 && f.view.size == f.view.r.Size() {
		return false, nil
	}
	var payload space
	changes := false
	err := f.bat.each(ctx, func(index int64, e uint64) error {
		if _, r := f.table.at(index); r != ofPayload {
			return nil
		}
		at, needed := f.place(index, e)
		if needed > 0 {
			changes = changes || needed > f.view.r.Size()-at.offset
			payload.take(at.offset, at.length)
		}
		return nil
	})
	next := int64(-1) // next MiB with payload; both are in ascending order
	for _, u := range f.view.log {
		from, to := mibRange(u.offset, u.length)
		if next < from {
			next = payload.next(from, true)
		}
		changes = changes || next < to
	}
	return changes, err
}

// replay applies the log of an opened file and marks it empty.
func (f *File) replay(ctx context.Context) error {
	if f.headers.log == (disk.GUID{}) {
		return nil
	}
	if err := f.markChanged(ctx, false); err != nil {
		return err
	}
	if f.view.size > f.c.Size() {
		if err := f.c.Truncate(ctx, f.view.size); err != nil {
			return err
		}
	}
	if err := f.applyLog(ctx); err != nil {
		return err
	}
	f.view.log = nil
	return f.empty(ctx)
}

// applyLog writes the updates to their destinations, with one write for up to 1 MiB of
// contiguous updates.
func (f *File) applyLog(ctx context.Context) error {
	buf := make([]byte, 0, mib)
	for rest := f.view.log; len(rest) > 0; {
		first := rest[0]
		if first.sector == 0 {
			if err := f.c.Unmap(ctx, first.offset, first.length); err != nil {
				return fmt.Errorf("apply the log at %d: %w", first.offset, err)
			}
			rest = rest[1:]
			continue
		}
		buf = buf[:0]
		for len(rest) > 0 && rest[0].sector != 0 && rest[0].offset == first.offset+int64(len(buf)) && len(buf) < mib {
			u := rest[0]
			buf = buf[:len(buf)+sectorLength]
			if err := u.read(ctx, f.view.r, buf[len(buf)-sectorLength:], u.offset); err != nil {
				return err
			}
			rest = rest[1:]
		}
		if err := f.c.WriteAt(ctx, buf, first.offset); err != nil {
			return fmt.Errorf("apply the log at %d: %w", first.offset, err)
		}
	}
	return nil
}
