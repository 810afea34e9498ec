package backstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/record"
	"odx/backstore/rows"
	"odx/backstore/stale"
)

// MaxVolumeBytes is the largest size of a volume.
const MaxVolumeBytes = rows.MaxBytes

// maxBlocks is more than any volume or file has.
const maxBlocks = MaxVolumeBytes/BlockLength + 1

// Volume is a named address space. It is safe for concurrent use. Offsets and
// lengths are bytes; any alignment is right, 4 KiB is fast.
type Volume struct {
	store  *Store
	number uint64 // key in the store's table, never used again
	id     [16]byte
	// named is the name. It changes with catalog.mu held.
	named atomic.Pointer[string]
	// What the volume was made as, for its whole life.
	file     bool
	readOnly bool
	origin   uint64 // number of the volume that it was cloned from; 0: none
	created  int64  // seconds since 1970; 0: not known

	// storeDuplicates: what is written is neither looked up nor found later.
	storeDuplicates atomic.Bool

	// atomicWrites counts the writes that no read may see a part of. It changes
	// with mu held, together with the map.
	atomicWrites atomic.Uint64

	// frozen: a protection forbids writes. It changes with mu held.
	frozen atomic.Bool

	mu          sync.RWMutex
	root        blockmap.Root
	size        int64
	deleted     bool
	protections map[string]Protection // by owner
	recent      *recent               // nil: no change that a read might wait for

	watched watches

	// stale has blocks only where the store is open for reading alone.
	stale stale.Blocks
}

// Name returns the volume's name.
func (v *Volume) Name() string { return *v.named.Load() }

// String returns its kind and name: "volume NAME" or "file NAME".
func (v *Volume) String() string {
	return v.key().String()
}

// newVolume returns a volume of that name with nothing in it.
func (s *Store) newVolume(name string) *Volume {
	v := &Volume{store: s}
	v.named.Store(&name)
	return v
}

// key is where the store's table has the name.
func (v *Volume) key() rows.Name { return rows.Name{Name: v.Name(), File: v.file} }

// ID returns the random number that the volume was made with; it stays for its
// whole life and is never used again.
func (v *Volume) ID() [16]byte { return v.id }

// StoreDuplicates turns deduplication off for what is written from now on, or on
// again: it is stored without being looked up, and equal data of other volumes does
// not find it. Copies share extents all the same. A restart forgets it.
func (v *Volume) StoreDuplicates(on bool) { v.storeDuplicates.Store(on) }

// Size returns the volume's size in bytes.
func (v *Volume) Size() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.size
}

// checkRange reports whether [off, off+length) lies in the volume. v.mu is held.
func (v *Volume) checkRange(off, length int64) error {
	if v.deleted {
		return fmt.Errorf("%v: %w", v, ErrNotFound)
	}
	if !(Range{Offset: off, Length: length}).In(v.size) {
		return fmt.Errorf("%w: %v has %d bytes, wanted %d at %d", ErrRange, v, v.size, length, off)
	}
	return nil
}

// admit is the last check before a change, with v.mu held: an operation whose
// context has ended changes nothing any more, however long it waited for the
// lock, because its end may have been reported already.
func (v *Volume) admit(ctx context.Context, off, length int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return v.checkRange(off, length)
}

// admitWrite is admit of a write, which a frozen volume refuses.
func (v *Volume) admitWrite(ctx context.Context, off, length int64) error {
	if err := v.checkThawed(); err != nil {
		return err
	}
	return v.admit(ctx, off, length)
}

// Flush makes every write of the store that returned before durable.
func (v *Volume) Flush(ctx context.Context) error { return v.store.Flush(ctx) }

// WriteOut has every change of the store that returned before outlive this
// process: see Store.WriteOut.
func (v *Volume) WriteOut(ctx context.Context) error { return v.store.WriteOut(ctx) }

// Barrier makes sure that after a crash nothing that is written after it is there
// without all that was written before it. The journal keeps all changes in one
// order, so there is nothing to do.
func (v *Volume) Barrier(context.Context) error { return v.store.life.usable() }

// WriteAt writes p at off. It takes effect in steps of at most 1 MiB; after an
// error some of them may have been done.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64) error {
	return v.write(ctx, p, off, nil)
}

// write is WriteAt of what may have names in another store.
func (v *Volume) write(ctx context.Context, p []byte, off int64, names *naming) error {
	if err := v.checkWritable(); err != nil {
		return err
	}
	v.mu.RLock()
	err := v.checkRange(off, int64(len(p)))
	v.mu.RUnlock()
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n := len(p)
		if head := int(off % BlockLength); head != 0 || n < BlockLength {
			n = min(n, BlockLength-head)
			if err := v.writePart(ctx, p[:n], off); err != nil {
				return err
			}
		} else {
			n = min(n&^(BlockLength-1), planBlocks*BlockLength)
			if _, err := v.writeBlocks(ctx, p[:n], off, blocksWrite{names: names}); err != nil {
				return err
			}
		}
		p = p[n:]
		off += int64(n)
	}
	return nil
}

// writePart writes less than a block: it reads the block, merges and writes it
// if no other writer changed it in between.
func (v *Volume) writePart(ctx context.Context, p []byte, off int64) error {
	b := v.store.reader.getBlock()
	defer v.store.reader.putBlock(b)
	base := off &^ (BlockLength - 1)
	for {
		var expect [1]extent.Slot
		if _, err := v.readBlocks(ctx, b[:], base, expect[:]); err != nil {
			return err
		}
		copy(b[off-base:], p)
		done, err := v.writeBlocks(ctx, b[:], base, blocksWrite{expect: expect[:]})
		if err != nil || done {
			return err
		}
	}
}

// blocksWrite says what there is to a write of whole blocks besides the data.
type blocksWrite struct {
	// expect, if it is there, are the slots that the blocks must still have. A
	// slot that is the same means data that is the same, because extents never
	// change and their IDs are never used again.
	expect []extent.Slot
	// atomic says that no read may see a part of it.
	atomic bool
	// names, if it is there, has what another store calls the blocks.
	names *naming
}

// writeBlocks writes whole blocks in one step, and reports whether it did: they
// may not have been as expected.
func (v *Volume) writeBlocks(ctx context.Context, p []byte, off int64, w blocksWrite) (done bool, err error) {
	for {
		done, err = v.tryWriteBlocks(ctx, p, off, w)
		if err == nil || !errors.Is(err, ErrNoSpace) || !v.store.makeRoom(ctx, int64(len(p))) {
			return done, err
		}
	}
}

// tryWriteBlocks writes with the room that there is.
func (v *Volume) tryWriteBlocks(ctx context.Context, p []byte, off int64, w blocksWrite) (done bool, err error) {
	s := v.store
	if err := s.life.writable(); err != nil {
		return false, err
	}
	plan := v.newPlan()
	plan.sums = w.names.sumsAt(off)
	return v.applyPrepared(ctx, plan, off, w, s.writer.prepare(plan, uint64(off/BlockLength), p))
}

// applyPrepared puts a plan into the map, unless it could not be prepared, and ends it.
func (v *Volume) applyPrepared(ctx context.Context, plan *writePlan, off int64, w blocksWrite, err error) (done bool, _ error) {
	s, block := v.store, uint64(off/BlockLength)
	for err == nil {
		if err = v.watched.giveNotice(ctx, block, uint64(plan.rec.Blocks)); err != nil {
			break
		}
		var op operation
		if op, err = s.begin(ctx, &plan.rec); err != nil {
			break
		}
		done, err = v.applyPlan(ctx, &op, plan, off, plan.rec.Blocks*BlockLength, w)
		if err == errWatched {
			op.End()
			err = nil
			continue
		}
		if derr := s.writer.discard(plan); err == nil {
			err = derr
		}
		op.End()
		return done, err
	}
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	if derr := s.writer.discard(plan); err == nil {
		err = derr
	}
	return false, err
}

func (v *Volume) applyPlan(ctx context.Context, op *operation, plan *writePlan, off int64, length int, w blocksWrite) (done bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// The last block of a volume may reach beyond its size.
	if err := v.admitWrite(ctx, off, min(int64(length), v.size-off)); err != nil {
		return false, err
	}
	if w.expect != nil {
		var now [planBlocks]extent.Slot
		if err := v.store.parts.forest.Lookup(v.root, plan.rec.Block, now[:len(w.expect)]); err != nil {
			return false, err
		}
		if !slices.Equal(now[:len(w.expect)], w.expect) {
			return false, nil
		}
	}
	if err := v.watched.check(plan.rec.Block, uint64(plan.rec.Blocks)); err != nil {
		return false, err
	}
	if w.atomic {
		v.atomicWrites.Add(1)
	}
	if err := v.store.writer.touchWrite(v.root, &plan.rec); err != nil {
		return false, v.store.life.unread(v.String(), int64(plan.rec.Block)*BlockLength, err)
	}
	if err := v.store.writer.put(plan, &v.root); err != nil {
		return false, err
	}
	v.commit(op, plan.rec.Block, uint64(plan.rec.Blocks))
	v.store.writer.publish(plan)
	if w.names != nil {
		w.names.add(v.store, off, plan.rec.Slots[:plan.rec.Blocks])
	}
	return true, nil
}

// newPlan returns the plan of a write to the volume.
func (v *Volume) newPlan() *writePlan {
	p := v.store.writer.newPlan()
	p.rec.Volume = v.number
	p.deduplicate = !v.store.storeDuplicates.Load() && !v.storeDuplicates.Load()
	return p
}

// Zero makes the range read as zeros and gives its space back.
func (v *Volume) Zero(ctx context.Context, off, length int64) error {
	if err := v.checkWritable(); err != nil {
		return err
	}
	v.mu.RLock()
	err := v.checkRange(off, length)
	v.mu.RUnlock()
	if err != nil {
		return err
	}
	end := off + length
	for off < end {
		if off%BlockLength != 0 || end-off < BlockLength {
			n := min(end-off, BlockLength-off%BlockLength)
			if err := v.writePart(ctx, zeroBlock[:n], off); err != nil {
				return err
			}
			off += n
			continue
		}
		n := (end - off) &^ (BlockLength - 1)
		err := v.changeWatched(ctx, uint64(off/BlockLength), uint64(n/BlockLength), func() error { return v.clearBlocks(ctx, off, n) })
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// Unmap gives the range's space back; it reads as zeros afterwards.
func (v *Volume) Unmap(ctx context.Context, off, length int64) error {
	return v.Zero(ctx, off, length)
}

func (v *Volume) clearBlocks(ctx context.Context, off, length int64) error {
	s := v.store
	first, count := uint64(off/BlockLength), uint64(length/BlockLength)
	op, err := s.begin(ctx, &record.Clear{Volume: v.number, First: first, Count: count})
	if err != nil {
		return err
	}
	defer op.End()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.admitWrite(ctx, off, length); err != nil {
		return err
	}
	if err := v.watched.check(first, count); err != nil {
		return err
	}
	if err := s.parts.forest.TouchClear(v.root, first, count); err != nil {
		return s.life.unread(v.String(), off, err)
	}
	if err := s.parts.forest.Clear(&v.root, first, count); err != nil {
		return s.life.fail(err)
	}
	v.commit(&op, first, count)
	return nil
}

func (v *Volume) flags() byte {
	var flags byte
	if v.readOnly {
		flags |= rows.FlagReadOnly
	}
	if v.file {
		flags |= rows.FlagFile
	}
	return flags
}

func (v *Volume) setFlags(flags byte) {
	v.readOnly = flags&rows.FlagReadOnly != 0
	v.file = flags&rows.FlagFile != 0
}

// checkWritable returns ErrReadOnly for a volume that is never written to, and a
// *ProtectedError for a frozen one.
func (v *Volume) checkWritable() error {
	if v.readOnly {
		return fmt.Errorf("%v: %w", v, ErrReadOnly)
	}
	if !v.frozen.Load() {
		return nil
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.checkThawed()
}

// row returns what is stored of the volume.
func (v *Volume) row() *rows.Volume {
	return &rows.Volume{Number: v.number, ID: v.id, Name: v.Name(), Size: v.size, Root: v.root, Flags: v.flags(), Origin: v.origin, Created: v.created}
}

// volumeOf returns the volume that a row describes.
func (s *Store) volumeOf(r *rows.Volume) *Volume {
	v := s.newVolume(r.Name)
	v.number, v.id, v.size, v.root, v.origin, v.created = r.Number, r.ID, r.Size, r.Root, r.Origin, r.Created
	v.setFlags(r.Flags)
	return v
}
