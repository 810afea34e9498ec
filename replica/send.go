package replica

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"odx/backstore"
	"odx/blockdev"
	"odx/stream"
)

const (
	// sendChunk is how much is read at a time, in bytes.
	sendChunk = 1 << 20
	// sendAhead is how many chunks are read before they are written.
	sendAhead = 2
)

// Send implements Streamer. It reads a snapshot, also of a volume that is being written to,
// so that the stream has one point in time.
func (s *Streams) Send(ctx context.Context, r SendRequest, w io.Writer, progress func(Progress)) (Sent, error) {
	source, base, start, err := s.toSend(r)
	if err != nil {
		return Sent{}, err
	}
	n, err := s.admin.Pin(ctx, source)
	if err != nil {
		return Sent{}, err
	}
	defer n.Release()
	h, err := s.header(source, n.Length(), start)
	if err != nil {
		return Sent{}, err
	}
	var before *backstore.Snapshot
	if base != nil {
		if before, err = s.admin.Pin(ctx, base); err != nil {
			return Sent{}, err
		}
		defer before.Release()
		if h.Base, err = s.identity(base); err != nil {
			return Sent{}, err
		}
		h.BaseName, h.BaseSize = base.Name(), before.Length()
	}
	out, err := stream.NewWriter(w, h, r.Level)
	if err != nil {
		return Sent{Header: h}, err
	}
	report := reporter{fn: progress}
	if err := sendDifferences(ctx, out, n, before, start, func(p Progress) { report.report(p) }); err != nil {
		return Sent{Header: h}, fmt.Errorf("send %v: %w", source, err)
	}
	totals, err := out.Close()
	if err != nil {
		return Sent{Header: h}, fmt.Errorf("send %v: %w", source, err)
	}
	return Sent{h, totals}, nil
}

// toSend returns what a request asks for; base is nil for none.
func (s *Streams) toSend(r SendRequest) (source, base *backstore.Volume, start int64, err error) {
	if r.Resume != "" {
		return s.toResume(r)
	}
	if source, err = s.admin.Object(r.Source); err != nil {
		return nil, nil, 0, err
	}
	if r.Base != "" {
		if source.IsFile() {
			return nil, nil, 0, fmt.Errorf("%w: %v has no snapshots that a stream could be based on; send it whole", blockdev.ErrInvalid, source)
		}
		if base, err = s.snapshot(r.Base); err != nil {
			return nil, nil, 0, err
		}
		if base == source {
			return nil, nil, 0, fmt.Errorf("%w: %v is the base of itself", blockdev.ErrInvalid, source)
		}
	}
	if r.Start != 0 && !source.ReadOnly() {
		return nil, nil, 0, fmt.Errorf("%w: %v changes; only the stream of a snapshot can be continued", ErrResume, source)
	}
	if r.Start < 0 || r.Start > source.Size() {
		return nil, nil, 0, fmt.Errorf("%w: %v has %d bytes, not %d", ErrResume, source, source.Size(), r.Start)
	}
	return source, base, r.Start, nil
}

// toResume returns what a token asks for.
func (s *Streams) toResume(r SendRequest) (source, base *backstore.Volume, start int64, err error) {
	if r.Source != "" || r.Base != "" || r.Start != 0 {
		return nil, nil, 0, fmt.Errorf("%w: the token of a stream says what is sent; give nothing else", blockdev.ErrInvalid)
	}
	t, err := parseToken(r.Resume)
	if err != nil {
		return nil, nil, 0, err
	}
	if source, err = s.snapshotByIdentity(t.snapshot); err != nil {
		return nil, nil, 0, err
	}
	if source == nil {
		return nil, nil, 0, fmt.Errorf("snapshot %v, which the stream was of: %w", t.snapshot, backstore.ErrNotFound)
	}
	if t.base != (stream.ID{}) {
		if base, err = s.snapshotByIdentity(t.base); err != nil {
			return nil, nil, 0, err
		}
		if base == nil {
			return nil, nil, 0, fmt.Errorf("snapshot %v, which the stream was based on: %w", t.base, backstore.ErrNotFound)
		}
	}
	if t.offset > source.Size() {
		return nil, nil, 0, fmt.Errorf("%w: %v has %d bytes, not %d", ErrResume, source, source.Size(), t.offset)
	}
	return source, base, t.offset, nil
}

// header returns the header of a stream without a base.
func (s *Streams) header(source *backstore.Volume, size, start int64) (h stream.Header, err error) {
	h = stream.Header{Store: s.store.ID(), File: source.IsFile(), Size: size, Start: start, Created: time.Now().Truncate(time.Second)}
	if !source.ReadOnly() {
		h.Volume, h.VolumeName = source.ID(), source.Name()
		return h, nil
	}
	h.SnapshotName, h.Created = source.Name(), source.Created()
	if h.Snapshot, err = s.identity(source); err != nil {
		return h, err
	}
	if name, ok := source.Origin(); ok {
		if origin, err := s.store.Volume(name); err == nil {
			h.Volume, h.VolumeName = origin.ID(), name
		}
	}
	return h, nil
}

// chunk is a part of what is sent: data, or a hole of length bytes.
type chunk struct {
	off, length int64
	data        []byte // nil for a hole
}

// sendDifferences writes what differs between two snapshots from start on. A goroutine
// reads, so that the disk and the network are busy at a time.
func sendDifferences(ctx context.Context, w *stream.Writer, n, base *backstore.Snapshot, start int64, report func(Progress)) error {
	g, ctx := errgroup.WithContext(ctx)
	chunks := make(chan chunk, sendAhead)
	buffers := make(chan []byte, sendAhead+2)
	for range cap(buffers) {
		buffers <- make([]byte, sendChunk)
	}
	g.Go(func() error {
		defer close(chunks)
		blocks := wholeBlocks{size: n.Length(), next: start}
		return n.Diff(ctx, base, start, n.Length()-start, func(d backstore.Difference) error {
			return blocks.each(d, func(d backstore.Difference) error { return readChunks(ctx, n, d, buffers, chunks) })
		})
	})
	g.Go(func() error {
		p := Progress{OffsetBytes: start, SizeBytes: n.Length()}
		for c := range chunks {
			if err := writeChunk(w, c); err != nil {
				return err
			}
			p.OffsetBytes = c.off + c.length
			if c.data != nil {
				p.DataBytes += c.length
				buffers <- c.data[:sendChunk] // it has room for all of them
			}
			report(p)
		}
		return ctx.Err()
	})
	return g.Wait()
}

// wholeBlocks makes whole blocks of differences, which begin or end within one where a
// snapshot ends there.
type wholeBlocks struct {
	size int64
	next int64 // all before it was passed on
}

// each calls fn with the blocks of a difference that were not passed on. A block that is a
// hole in part counts as data.
func (w *wholeBlocks) each(d backstore.Difference, fn func(backstore.Difference) error) error {
	const block = stream.BlockLength
	up := func(n int64) int64 { return min((n+block-1)/block*block, w.size) }
	first, end := max(d.Offset/block*block, w.next), up(d.End())
	lo, hi := end, end // of the hole
	if d.Hole {
		if lo, hi = max(up(d.Offset), first), d.End(); hi != w.size {
			hi = hi / block * block
		}
		if hi < lo {
			lo, hi = end, end
		}
	}
	for _, part := range []struct {
		from, to int64
		hole     bool
	}{{first, lo, false}, {lo, hi, true}, {hi, end, false}} {
		if part.from >= part.to {
			continue
		}
		if err := fn(backstore.Difference{Range: backstore.Range{Offset: part.from, Length: part.to - part.from}, Hole: part.hole}); err != nil {
			return err
		}
	}
	w.next = max(w.next, end)
	return nil
}

// readChunks reads a difference.
func readChunks(ctx context.Context, n *backstore.Snapshot, d backstore.Difference, buffers <-chan []byte, chunks chan<- chunk) error {
	put := func(c chunk) error {
		select {
		case chunks <- c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if d.Hole {
		return put(chunk{off: d.Offset, length: d.Length})
	}
	for off := d.Offset; off < d.End(); {
		var b []byte
		select {
		case b = <-buffers:
		case <-ctx.Done():
			return ctx.Err()
		}
		b = b[:min(sendChunk, d.End()-off)]
		if err := n.ReadAt(ctx, b, off); err != nil {
			return err
		}
		if err := put(chunk{off, int64(len(b)), b}); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func writeChunk(w *stream.Writer, c chunk) error {
	if c.data == nil {
		return w.Hole(c.off, c.length)
	}
	return w.Data(c.off, c.data)
}
