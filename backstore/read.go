package backstore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/backstore/blockmap"
	"odx/backstore/damage"
	"odx/backstore/extent"
	"odx/backstore/invariant"
	"odx/backstore/journal"
)

// reader reads data and proves that it is what was written.
type reader struct {
	parts  *parts
	opts   *Options
	log    *logrus.Entry
	life   *life
	damage *damage.Log
	pace   *pacer
	opMu   *sync.RWMutex

	blocks sync.Pool // of *[BlockLength]byte
	// superblockLost: both copies, so the fingerprints are by another key.
	superblockLost bool
}

// readBatch is how many blocks are looked up at once.
const readBatch = 128

// readTries bounds how often a read looks blocks up again because their extents
// were freed, and their segment deleted, between look-up and read.
const readTries = 8

// tree is what a read looks blocks up in: a volume, which is locked for each
// look-up, or a snapshot, which its handle keeps as it is.
type tree struct {
	volume   *Volume
	snapshot *snapshotState
}

// lookup looks blocks up, and returns the record that has to be durable before they are shown.
func (t tree) lookup(rd *reader, block uint64, locs []extent.Location, slots []extent.Slot) (journal.LSN, error) {
	if t.snapshot != nil {
		if err := t.snapshot.stale.Check(block, uint64(len(slots))); err != nil {
			return 0, err
		}
		return t.snapshot.made, rd.resolve(t.snapshot.root, block, locs, slots)
	}
	t.volume.mu.RLock()
	defer t.volume.mu.RUnlock()
	if t.volume.deleted { // since the read began; its tree was freed
		return 0, ErrNotFound
	}
	if err := t.volume.stale.Check(block, uint64(len(slots))); err != nil {
		return 0, err
	}
	return t.volume.lastChange(block, uint64(len(slots))), rd.resolve(t.volume.root, block, locs, slots)
}

func (t tree) name() string {
	if t.snapshot != nil {
		return fmt.Sprintf("snapshot %d", t.snapshot.id)
	}
	return t.volume.String()
}

// resolve looks blocks up in a tree that is locked or held, and gives their
// slots too.
func (rd *reader) resolve(r blockmap.Root, block uint64, locs []extent.Location, slots []extent.Slot) error {
	err := rd.parts.forest.Lookup(r, block, slots)
	if err == nil {
		err = rd.parts.extents.Resolve(slots, locs)
	}
	if rd.life.failed.Load() == nil && !rd.opts.ReadOnly { // a rescue reads what damage has left
		prove(err)
	}
	return err
}

// readTree fills p from byte off of a tree.
func (rd *reader) readTree(ctx context.Context, t tree, p []byte, off int64) error {
	// A store that stopped after an error still reads: what is in memory of an
	// address space that is not being changed is right.
	if rd.life.closed.Load() {
		return ErrClosed
	}
	if err := rd.life.owner.Check(); err != nil {
		return err
	}
	var locs [readBatch]extent.Location
	var slots [readBatch]extent.Slot
	var found journal.LSN
	for tries := 0; len(p) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		head := int(off % BlockLength)
		n := min((head+len(p)+BlockLength-1)/BlockLength, readBatch)
		changed, err := t.lookup(rd, uint64(off/BlockLength), locs[:n], slots[:n])
		if err != nil {
			return rd.lookupError(t, off, n, err)
		}
		found = max(found, changed)
		part := p[:min(len(p), n*BlockLength-head)]
		bad, err := rd.fetchBytes(locs[:n], head, part)
		if err != nil {
			if tries++; errors.Is(err, fs.ErrNotExist) && tries < readTries {
				continue
			}
			return rd.readError(ctx, t, off-int64(head)+int64(bad)*BlockLength, slots[bad], err)
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	if err := rd.settle(ctx, found); err != nil {
		return err
	}
	return rd.life.owner.Check() // what was read may have been changed by another owner
}

// readError is the error of a read that ends at the block at byte off of a tree,
// because what is stored for its slot could not be read.
func (rd *reader) readError(ctx context.Context, t tree, off int64, slot extent.Slot, err error) error {
	id, _ := rd.parts.extents.Split(slot)
	rd.distrust(ctx, id, err)
	if unreadable(err) {
		err = &CorruptError{Name: t.name(), Offset: off, Err: err}
		rd.damage.Note(t.name(), err)
		return err
	}
	return fmt.Errorf("%s: block at byte %d: %w", t.name(), off, err)
}

// fetchBytes reads the blocks at locs into p, whose first byte is byte head of
// the first block. On error it says which block was bad.
func (rd *reader) fetchBytes(locs []extent.Location, head int, p []byte) (bad int, err error) {
	if head == 0 && len(p)%BlockLength == 0 {
		return rd.fetch(locs, p)
	}
	b := rd.getBlock()
	defer rd.putBlock(b)
	for i := 0; len(p) > 0; head = 0 {
		if head == 0 && len(p) >= BlockLength {
			n := len(p) / BlockLength
			if bad, err := rd.fetch(locs[i:i+n], p[:n*BlockLength]); err != nil {
				return i + bad, err
			}
			i += n
			p = p[n*BlockLength:]
			continue
		}
		if _, err := rd.fetch(locs[i:i+1], b[:]); err != nil {
			return i, err
		}
		p = p[copy(p, b[head:]):]
		i++
	}
	return 0, nil
}

// fetch reads whole blocks into p and checks them, with one read for each run
// of blocks that lie one after the other.
func (rd *reader) fetch(locs []extent.Location, p []byte) (bad int, err error) {
	for i := 0; i < len(locs); {
		part := p[i*BlockLength:]
		if locs[i].Hole() {
			clear(part[:BlockLength])
			i++
			continue
		}
		n := 1
		for i+n < len(locs) && locs[i+n].Addr.Segment == locs[i].Addr.Segment &&
			locs[i+n].Addr.Block == locs[i].Addr.Block+uint32(n) {
			n++
		}
		part = part[:n*BlockLength]
		if err := rd.parts.segments.ReadAt(locs[i].Addr, part); err != nil {
			if n == 1 || errors.Is(err, fs.ErrNotExist) {
				return i, err
			}
			// Not all of it can be bad: read up to the first block that is.
			for k := range n {
				if _, err := rd.fetch(locs[i+k:i+k+1], part[k*BlockLength:(k+1)*BlockLength]); err != nil {
					return i + k, err
				}
			}
			i += n
			continue
		}
		for k := range n {
			if crc32.Checksum(part[k*BlockLength:(k+1)*BlockLength], castagnoli) != locs[i+k].CRC {
				return i + k, fmt.Errorf("%v: %w", locs[i+k].Addr, errCRC)
			}
		}
		i += n
	}
	return 0, nil
}

func (rd *reader) getBlock() *[BlockLength]byte {
	if b, ok := rd.blocks.Get().(*[BlockLength]byte); ok {
		return b
	}
	return new([BlockLength]byte)
}

func (rd *reader) putBlock(b *[BlockLength]byte) {
	invariant.Scribble(b[:])
	rd.blocks.Put(b)
}

// verifyExtent compares data with what the table says of the extent. It returns
// the blocks that differ, as bits, and an error that says how.
func (rd *reader) verifyExtent(x *extent.Extent, data []byte) (bad uint32, err error) {
	for k := range int(x.Blocks) {
		if crc32.Checksum(data[k*BlockLength:(k+1)*BlockLength], castagnoli) != x.CRC[k] {
			bad |= 1 << k
			err = fmt.Errorf("block %d: %w", x.Addr.Block+uint32(k), errCRC)
		}
	}
	if err != nil || x.Fingerprint == (extent.Fingerprint{}) || rd.superblockLost {
		return bad, err // without a fingerprint where deduplication was off, or without its key
	}
	if rd.parts.fingerprints.Sum(data) != x.Fingerprint {
		return 1<<x.Blocks - 1, errFingerprint
	}
	return 0, nil
}
