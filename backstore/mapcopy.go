package backstore

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/record"
	"odx/blockdev"
)

const (
	// mapStep is how many steps of blockmap.Copy are taken under the volume's
	// lock at once: some tenths of a millisecond.
	mapStep = 256
)

// Map makes [dst, dst+length) of the volume equal bytes [src, src+length) of
// the snapshot. Where source and destination lie alike to 4 KiB blocks it
// shares them; the rest is read and written. It returns the bytes done, in one
// piece from dst on: fewer than length, without an error, when ctx asks it to stop
// (blockdev.Late); with an error, those done before it.
func (v *Volume) Map(ctx context.Context, dst int64, from *Snapshot, src, length int64) (int64, error) {
	from.held.Use()
	if err := v.checkWritable(); err != nil {
		return 0, err
	}
	v.mu.RLock()
	err := v.checkRange(dst, length)
	v.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	if !(Range{Offset: src, Length: length}).In(from.state.length) {
		return 0, fmt.Errorf("%w: snapshot %d has %d bytes, wanted %d at %d", ErrRange, from.state.id, from.state.length, length, src)
	}
	done := int64(0)
	for done < length && (done == 0 || !blockdev.Late(ctx)) {
		n, err := v.mapStep(ctx, dst+done, from, src+done, length-done)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// mapStep does the next part of a Map in the way that fits it.
func (v *Volume) mapStep(ctx context.Context, dst int64, from *Snapshot, src, length int64) (int64, error) {
	at, piece := from.state.locate(src)
	length = min(length, piece)
	head := dst % BlockLength
	if at%BlockLength != head {
		return v.copyBytes(ctx, dst, from, src, min(length, copyBuffer-head))
	}
	if head != 0 || length < BlockLength {
		return v.copyBytes(ctx, dst, from, src, min(length, BlockLength-head))
	}
	n := int64(0)
	err := v.changeWatched(ctx, uint64(dst/BlockLength), uint64(length/BlockLength), func() (err error) {
		n, err = v.mapBlocks(ctx, dst, from, at, length/BlockLength)
		return err
	})
	return n, err
}

// copyBytes copies at most copyBuffer bytes by reading and writing.
func (v *Volume) copyBytes(ctx context.Context, dst int64, from *Snapshot, src, n int64) (int64, error) {
	b, err := v.store.copies.take(ctx)
	if err != nil {
		return 0, err
	}
	defer v.store.copies.put(b)
	buf := b[:n]
	if err := from.ReadAt(ctx, buf, src); err != nil {
		return 0, err
	}
	if err := v.WriteAt(ctx, buf, dst); err != nil {
		return 0, err
	}
	blockdev.CountCopied(ctx, n)
	return n, nil
}

// mapBlocks maps blocks from byte at of the snapshot's tree, both sides on
// block boundaries, for one turn of the volume's lock.
func (v *Volume) mapBlocks(ctx context.Context, dst int64, from *Snapshot, at, blocks int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s := v.store
	to, first := uint64(dst/BlockLength), uint64(at/BlockLength)
	rec := record.Map{Volume: v.number, To: to, Snapshot: from.state.id, From: first, Count: uint64(blocks)}
	op, err := s.begin(ctx, &rec)
	if err != nil {
		return 0, err
	}
	defer op.End()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.admitWrite(ctx, dst, blocks*BlockLength); err != nil {
		return 0, err
	}
	if err := v.watched.check(to, uint64(blocks)); err != nil {
		return 0, err
	}
	steps := mapStep
	if s.pace.behind() {
		steps = 1 // it is urgent: see throttle
	}
	rec.Count, err = s.parts.forest.Copy(&v.root, to, from.state.root, first, uint64(blocks), steps)
	var step *blockmap.StepError
	if errors.As(err, &step) {
		// What was done before it counts; the next turn meets it again.
		if rec.Count == 0 {
			return 0, s.life.unread(v.String(), dst, step.Err)
		}
	} else if err != nil {
		return 0, s.life.fail(err)
	}
	op.revise(&rec)
	v.commit(&op, to, rec.Count)
	return int64(rec.Count) * BlockLength, nil
}
