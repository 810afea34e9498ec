package backstore

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"syscall"
	"time"

	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/invariant"
	"odx/backstore/segment"
)

const (
	// planBlocks is the largest part of a write that takes effect in one step.
	planBlocks = 256
	// inlineBytes is the most new data that a journal record carries itself.
	// Larger writes are made durable by syncing their segment.
	inlineBytes = 32 << 10
	// inlineWindow is how many bytes may have been written since the last flush
	// for records to carry data: a client that flushes often waits for one
	// sync then, while one that does not would only have its data written twice.
	inlineWindow = 1 << 20
)

// freshExtent is an extent of a plan that is not in the table yet.
type freshExtent struct {
	extent.Extent
	at int // its first block in the plan
}

// of returns the extent's part of the plan's data.
func (x *freshExtent) of(data []byte) []byte {
	return data[x.at*BlockLength : (x.at+int(x.Blocks))*BlockLength]
}

// writePlan is one write on its way into the store: first it finds duplicates
// and stores what is new, without a lock; then apply puts its slots into a map.
type writePlan struct {
	held    invariant.Held
	slots   [planBlocks]extent.Slot // 0: hole
	known   [planBlocks]extent.Slot // slots of extents that existed before, else 0
	fresh   []freshExtent
	first   extent.ID // of fresh[0]; the others follow
	pinned  []extent.ID
	head    enc    // the journal record
	inline  []byte // the data of fresh, when the record carries it
	blocks  int
	floor   segment.ID
	holding bool // floor is registered
}

var zeroBlock [BlockLength]byte

func isZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p, zeroBlock[:len(p)]) }

func (s *Store) newPlan() *writePlan {
	p, _ := s.plans.Get().(*writePlan)
	if p == nil {
		p = &writePlan{}
	}
	p.held.Take()
	return p
}

// prepare looks for duplicates in data, whole blocks to be written at block of
// a volume, and stores what is new. After an error or when the plan is not
// applied, the caller calls discard.
func (s *Store) prepare(p *writePlan, volume, block uint64, data []byte) error {
	p.blocks = len(data) / BlockLength
	clear(p.slots[:p.blocks])
	clear(p.known[:p.blocks])
	p.fresh, p.pinned, p.inline = p.fresh[:0], p.pinned[:0], nil
	p.floor = s.appendFloor()
	s.appends.begin(p.floor)
	p.holding = true

	s.cut(p, block, data)
	if !s.opts.StoreDuplicates {
		s.fingerprint(p, data)
		if err := s.findKnown(p); err != nil {
			return err
		}
	}
	p.checksum(data)
	if err := s.storeFresh(p, data); err != nil {
		return err
	}
	p.encode(s, volume, block)
	return nil
}

// appendFloor returns the lowest segment that an append can go to from now on.
func (s *Store) appendFloor() segment.ID {
	if id, ok := s.segments.Current(); ok {
		return id
	}
	return s.segments.NextID()
}

// cut makes extents of the data, all of them fresh until they are looked up.
func (s *Store) cut(p *writePlan, block uint64, data []byte) {
	for i := 0; i < p.blocks; {
		n := s.unitRun(block, i, p.blocks, data)
		if n == 0 {
			i++
			continue
		}
		x := freshExtent{at: i}
		x.Blocks = uint8(n)
		p.fresh = append(p.fresh, x)
		i += n
	}
}

// unitRun returns how many blocks from i on make an extent: up to the end of
// the dedup unit, counted from the start of the volume so that equal images
// are cut alike, without blocks of zeros. It is 0 when block i is zeros.
func (s *Store) unitRun(block uint64, i, end int, data []byte) int {
	unit := s.sb.unit
	end = min(end, i+unit-int((block+uint64(i))%uint64(unit)))
	n := 0
	for i+n < end && !isZero(data[(i+n)*BlockLength:(i+n+1)*BlockLength]) {
		n++
	}
	return n
}

// fingerprint computes the fingerprints of the fresh extents.
func (s *Store) fingerprint(p *writePlan, data []byte) {
	batch := s.fingerprints.Batch()
	for i := range p.fresh {
		x := &p.fresh[i]
		batch.Add((*[fingerprint.Size]byte)(&x.Fingerprint), x.of(data))
	}
	batch.Flush()
}

// findKnown looks the fresh extents up: what the table has is fresh no more.
func (s *Store) findKnown(p *writePlan) error {
	fresh := p.fresh[:0]
	for i := range p.fresh {
		known, err := s.find(p, &p.fresh[i])
		if err != nil {
			return err
		}
		if !known {
			fresh = append(fresh, p.fresh[i])
		}
	}
	p.fresh = fresh
	return nil
}

// find makes the blocks of x those of a known extent, if there is one.
func (s *Store) find(p *writePlan, x *freshExtent) (known bool, err error) {
	id := s.index.Lookup(&x.Fingerprint)
	if id == 0 {
		return false, nil
	}
	known, err = s.extents.Pin(id, &x.Fingerprint, int(x.Blocks))
	if err != nil || !known {
		return false, err
	}
	p.pinned = append(p.pinned, id)
	for k := range int(x.Blocks) {
		slot := s.extents.Slot(id, k)
		p.slots[x.at+k], p.known[x.at+k] = slot, slot
	}
	return true, nil
}

// checksum computes the checksums of the blocks of the fresh extents.
func (p *writePlan) checksum(data []byte) {
	for i := range p.fresh {
		x := &p.fresh[i]
		for k := range int(x.Blocks) {
			x.CRC[k] = crc32.Checksum(data[(x.at+k)*BlockLength:(x.at+k+1)*BlockLength], castagnoli)
		}
	}
}

// storeFresh appends the data of the fresh extents to the segments, what lies
// together in one piece.
func (s *Store) storeFresh(p *writePlan, data []byte) error {
	if len(p.fresh) == 0 {
		return nil
	}
	if err := s.checkRoom(p); err != nil {
		return err
	}
	p.first = s.extents.Allocate(len(p.fresh))
	appends := 0
	var piece []byte
	for i := 0; i < len(p.fresh); {
		j, end := i, p.fresh[i].at
		for j < len(p.fresh) && p.fresh[j].at == end {
			end += int(p.fresh[j].Blocks)
			j++
		}
		piece = data[p.fresh[i].at*BlockLength : end*BlockLength]
		addr, err := s.segments.Append(piece)
		if err != nil {
			return spaceError(err)
		}
		for ; i < j; i++ {
			x := &p.fresh[i]
			x.Addr = addr
			addr.Block += uint32(x.Blocks)
			for k := range int(x.Blocks) {
				p.slots[x.at+k] = s.extents.Slot(p.first+extent.ID(i), k)
			}
		}
		appends++
	}
	if unflushed := s.unflushed.Add(int64(len(data))); appends == 1 && len(piece) <= inlineBytes && unflushed <= inlineWindow {
		p.inline = piece
	}
	return nil
}

// lowSpace is how many bytes of the host's file system new data leaves free: the
// metadata engine writes through mapped files, in the background too, and a full
// disk would kill the process there.
const lowSpace = 128 << 20

// measureSpace notes whether the host's file system has room for new data.
func (s *Store) measureSpace() {
	free, err := s.opts.FS.Free(s.opts.Dir)
	if err == nil && free < 2*lowSpace {
		s.dropSpares(time.Now())
		free, err = s.opts.FS.Free(s.opts.Dir)
	}
	low := err == nil && free < lowSpace
	if s.lowSpace.Swap(low) != low {
		entry := s.log.WithField("free_bytes", free)
		if low {
			entry.Error("the file system is nearly full: writes of new data fail until there is room")
		} else {
			entry.Info("the file system has room again: writes go on")
		}
	}
}

// checkRoom refuses new data that would not fit.
func (s *Store) checkRoom(p *writePlan) error {
	if s.lowSpace.Load() {
		return fmt.Errorf("%w: the file system has less than %d bytes left", ErrNoSpace, lowSpace)
	}
	if s.opts.CapacityBytes == 0 {
		return nil
	}
	blocks := s.usage.Total()
	for i := range p.fresh {
		blocks += int64(p.fresh[i].Blocks)
	}
	if blocks*BlockLength > s.opts.CapacityBytes {
		return fmt.Errorf("%w: its capacity is %d bytes", ErrNoSpace, s.opts.CapacityBytes)
	}
	return nil
}

// spaceError marks errors that mean a full file system.
func spaceError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// encode builds the journal record.
func (p *writePlan) encode(s *Store, volume, block uint64) {
	p.head.b = p.head.b[:0]
	flags := byte(0)
	if p.inline != nil {
		flags = flagInline
	}
	p.head.writeHead(volume, block, p.blocks, flags)
	fresh := 0
	for i := 0; i < p.blocks; {
		switch {
		case p.slots[i] == 0:
			n := p.holes(i)
			p.head.holeRun(n)
			i += n
		case p.known[i] != 0:
			n := 1
			for i+n < p.blocks && p.known[i+n] == p.known[i]+extent.Slot(n) {
				n++
			}
			p.head.knownRun(p.known[i], n)
			i += n
		default:
			from := fresh
			for fresh < len(p.fresh) && p.fresh[fresh].at == i && follows(p.fresh, from, fresh) {
				i += int(p.fresh[fresh].Blocks)
				fresh++
			}
			p.head.freshRun(p.first+extent.ID(from), p.fresh[from:fresh])
		}
	}
}

// follows reports whether extent i lies right behind extent i-1, where a run
// that starts at from has both.
func follows(fresh []freshExtent, from, i int) bool {
	if i == from {
		return true
	}
	prev := fresh[i-1].Addr
	prev.Block += uint32(fresh[i-1].Blocks)
	return fresh[i].Addr == prev
}

func (p *writePlan) holes(i int) int {
	n := 0
	for i+n < p.blocks && p.slots[i+n] == 0 {
		n++
	}
	return n
}

// size returns the length of the journal record.
func (p *writePlan) size() int { return len(p.head.b) + len(p.inline) }

// apply puts the plan into a volume's map. The volume is locked exclusively and
// opMu is shared. Its journal record is appended last.
func (s *Store) apply(p *writePlan, v *Volume, block uint64) error {
	if err := s.install(v, block, p.slots[:p.blocks], p.known[:p.blocks], p.first, p.fresh); err != nil {
		return s.fail(err)
	}
	if len(p.fresh) > 0 && p.inline == nil {
		s.segmentDirty.Store(true)
	}
	s.journal.Append(p.head.b, p.inline)
	if s.opts.StoreDuplicates {
		return nil
	}
	for i := range p.fresh {
		// Not before the record is in the journal: others may refer to the
		// extent from now on, and their records must come later.
		s.index.Insert(&p.fresh[i].Fingerprint, p.first+extent.ID(i))
	}
	return nil
}

// install makes the slots those of the blocks from block on; known are those of
// them whose extents existed before.
func (s *Store) install(v *Volume, block uint64, slots, known []extent.Slot, first extent.ID, fresh []freshExtent) error {
	for i := range fresh {
		if err := s.extents.Create(first+extent.ID(i), &fresh[i].Extent); err != nil {
			return err
		}
	}
	if err := s.extents.Ref(known); err != nil {
		return err
	}
	for i := 0; i < len(slots); {
		n := 1
		for i+n < len(slots) && (slots[i+n] == 0) == (slots[i] == 0) {
			n++
		}
		var err error
		if slots[i] == 0 {
			err = s.forest.Clear(&v.root, block+uint64(i), uint64(n))
		} else {
			err = s.forest.Set(&v.root, block+uint64(i), slots[i:i+n])
		}
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// discard ends a plan, applied or not. opMu is shared when the plan has pins.
func (s *Store) discard(p *writePlan) error {
	if p.holding {
		s.appends.end(p.floor)
		p.holding = false
	}
	for _, id := range p.pinned {
		if err := s.extents.Unpin(id); err != nil {
			return s.fail(err)
		}
	}
	p.pinned, p.inline = p.pinned[:0], nil
	p.held.Return()
	if invariant.Enabled {
		for i := range p.slots {
			p.slots[i], p.known[i] = ^extent.Slot(0), ^extent.Slot(0)
		}
		invariant.Scribble(p.head.b)
	}
	s.plans.Put(p)
	return nil
}
