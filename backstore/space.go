package backstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"syscall"
	"time"

	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/reserve"
	"odx/backstore/segment"
	"odx/backstore/vfs"
)

// A full file system must stop nothing but new data. What everything else has to
// write goes into files whose blocks were assigned before: records into the spare
// files of the journal, checkpoints into the pool here, what cleaning moves into
// the reserve of the segments. New data is refused as long as one of these is not
// whole, or lowSpace is not there beyond them. Nothing relies on space that was
// measured, which another program can take before it is used.
const (
	// lowSpace is how many bytes new data leaves free, for what has no reserve: the
	// entries of directories, and other programs.
	lowSpace = 1 << 20
	// mergeSlack stays free when metadata is merged, which nothing needs.
	mergeSlack = 64 << 20
	// reserveFiles take two checkpoints, in two copies each.
	reserveFiles = 4
	// reservePart of the file system bounds the length of each of these files, and
	// leastReserve is the least that it is.
	reservePart  = 64
	leastReserve = 4 << 20
	// lowRecordsPart of what it has after a checkpoint is for how many bytes of records
	// the journal must have blocks on a full disk: a checkpoint that gives it room is due
	// with half of it.
	lowRecordsPart = 8
	// A store takes up to capacityPart of its capacity more than that on the disk,
	// or capacitySlack, whichever is more.
	// Of that, each file of the journal, and each file for a checkpoint, takes up to
	// filePart.
	capacityPart  = 50
	filePart      = 16
	capacitySlack = 256 << 20
	// roomTime is how long a write waits for cleaning to make room under the
	// capacity.
	roomTime = 10 * time.Second
)

// openReserve finds the files that are kept for checkpoints. It changes nothing.
func (s *Store) openReserve() error {
	if s.reserve != nil {
		return nil
	}
	total, err := s.opts.FS.Total(s.opts.Dir)
	if err != nil {
		return err
	}
	least := int64(leastReserve)
	if s.opts.tuning.reserveBytes > 0 {
		least, total = s.opts.tuning.reserveBytes, 0
	}
	s.journalFile = min(journal.DefaultFileBytes, total/reservePart)
	if c := s.opts.CapacityBytes; c > 0 {
		s.journalFile = min(s.journalFile, s.slack()/filePart)
		total = min(total, c+s.slack(), s.slack()/filePart*reservePart)
	}
	s.journalFile = max(s.journalFile, least)
	s.journalRoom.Store(s.journalFile) // until a checkpoint shows what there can be
	s.reserve, err = reserve.Open(reserve.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.opts.Dir, layout.ReserveDir), Files: reserveFiles,
		// A segment that was sealed because the next data did not fit is long enough, too.
		Bytes: max(min(total/reservePart, s.opts.CacheBytes/4, segment.DefaultSegmentBlocks*BlockLength-planBlocks*BlockLength), least) &^ (BlockLength - 1),
	})
	return err
}

// giveUp takes a file that the store needs no more: the reserve may, and on a full disk
// the journal.
func (s *Store) giveUp(path string) error {
	switch {
	case s.reserve == nil:
		return s.opts.FS.Remove(path)
	case s.reserve.Full() && s.journal != nil && s.lowSpace.Load() && s.journal.Lacks():
		return s.journal.Give(path)
	}
	return s.reserve.Give(path)
}

// dirtyLimit is how much changed metadata there can be: a checkpoint has to fit
// into the files of the reserve.
func (s *Store) dirtyLimit() int64 { return min(s.opts.CacheBytes/4, s.reserve.FileBytes()) }

// slack is how many bytes the store may take beyond its capacity.
func (s *Store) slack() int64 {
	return cmp.Or(s.opts.tuning.slackBytes, max(s.opts.CapacityBytes/capacityPart, capacitySlack))
}

// LiveBytes returns the length of all extents that something refers to.
func (s *Store) LiveBytes() int64 { return s.usage.Total() * BlockLength }

// PhysicalBytes returns the length of all segments, and of the files that wait
// to become segments again.
func (s *Store) PhysicalBytes() int64 {
	for _, id := range s.segments.List() {
		s.segments.Bytes(id) // it is remembered
	}
	return s.segments.TotalBytes()
}

// ReserveBytes returns the length of the files that are kept for a full disk. They
// are part of DiskBytes.
func (s *Store) ReserveBytes() int64 { return s.reserve.Bytes() + s.segments.ReserveBytes() }

// DiskBytes returns what the store takes on the disk: segments, journal, metadata
// and reserve.
func (s *Store) DiskBytes() int64 {
	bytes := s.segments.TotalBytes() + s.ReserveBytes() + s.kv.Stats().Bytes
	if s.journal != nil { // it can be damaged where a store is only read
		bytes += s.journal.FileBytes()
	}
	return bytes
}

// FreeBytes returns how many bytes of new data fit: into the capacity, if there
// is one, and onto the host's file system.
func (s *Store) FreeBytes() (int64, error) {
	if s.lowSpace.Load() {
		return 0, nil // until the reserve is whole again
	}
	free, err := s.opts.FS.Free(s.opts.Dir)
	if err != nil {
		return 0, err
	}
	if free < math.MaxInt64/2 {
		free += s.segments.RoomBytes() - s.segments.MissingBytes() - s.reserve.MissingBytes()
	}
	free -= lowSpace
	if s.opts.CapacityBytes > 0 {
		free = min(free, s.opts.CapacityBytes-s.LiveBytes(), s.opts.CapacityBytes+s.slack()-s.disk.Load())
	}
	return max(free, 0), nil
}

// measureSpace fills the reserve and notes whether there is room for new data.
func (s *Store) measureSpace() {
	if s.opts.ReadOnly {
		return
	}
	s.measuring.Lock()
	defer s.measuring.Unlock()
	missing := spaceError(s.fillReserve())
	if missing != nil && !errors.Is(missing, ErrNoSpace) {
		// The disk fails, and is not known to be full.
		if s.reserveErr != missing.Error() {
			s.log.WithError(missing).Warn("the reserve for a full disk cannot be filled; it is tried again")
		}
		s.reserveErr, missing = missing.Error(), nil
	} else {
		s.reserveErr = ""
	}
	free, err := s.opts.FS.Free(s.opts.Dir)
	if err != nil {
		return // the next one reports it
	}
	if s.opts.CapacityBytes > 0 {
		if s.disk.Store(s.DiskBytes()); s.segments.SpareBytes() > 0 && s.disk.Load() > s.opts.CapacityBytes {
			s.dropSpares(time.Now())
			s.disk.Store(s.DiskBytes())
		}
	}
	s.segments.Scarce(free < lowSpace)
	s.holdNames(free)
	low := missing != nil || free < lowSpace && free+s.segments.RoomBytes() < lowSpace
	if s.lowSpace.Swap(low) == low {
		return
	}
	entry := s.log.WithField("free_bytes", free)
	if low {
		entry.WithError(missing).Error("the file system is full: writes of new data fail until there is room")
	} else {
		entry.Info("the file system has room again: writes go on")
	}
}

// holdNames keeps room for names in the directories of the store, where the file
// system does not by itself. measuring is held.
func (s *Store) holdNames(free int64) {
	h, ok := s.opts.FS.(vfs.NameHolder)
	if !ok || free < lowSpace {
		s.namesHeld = false // those that there are may be used now
		return
	}
	if s.namesHeld {
		return
	}
	for _, name := range []string{layout.SegmentDir, layout.JournalDir, layout.CheckpointDir, layout.ReserveDir} {
		if err := h.HoldNames(filepath.Join(s.opts.Dir, name)); err != nil {
			return // the next time; layout.ReserveDir may not exist yet
		}
	}
	s.namesHeld = true
}

// fillReserve makes what is missing of the reserve, of files of the store that
// have no other use first.
func (s *Store) fillReserve() error {
	err := s.segments.FillReserve()
	// What a running checkpoint has taken of the reserve comes back when it ends: a spare
	// given up in its place would then be one too many, and be lost.
	for !s.checkpoints.storing.Load() && s.segments.ReserveFull() {
		least := s.reserve.FileBytes()
		if s.reserve.Full() {
			if !s.lowSpace.Load() || !s.journal.Lacks() {
				break
			}
			least = min(leastReserve, s.journalFile)
		}
		given, giveErr := s.segments.GiveUpSpare(least)
		if giveErr != nil {
			s.log.WithError(giveErr).Warn("a spare segment was not added to the reserve")
		}
		if !given {
			break
		}
	}
	return errors.Join(err, s.reserve.Fill(), s.journal.Ready())
}

// scarce reports whether cleaning is to make room, however little that is.
func (s *Store) scarce() bool {
	return s.lowSpace.Load() || s.opts.CapacityBytes > 0 && s.disk.Load() > s.opts.CapacityBytes+s.slack()/2
}

// lackingBytes returns how many bytes cleaning has to free, at least, to be of use.
func (s *Store) lackingBytes() int64 {
	free, err := s.opts.FS.Free(s.opts.Dir)
	if err != nil || !s.lowSpace.Load() {
		return BlockLength
	}
	lacking := lowSpace + s.segments.MissingBytes() + s.reserve.MissingBytes()
	return max(lacking-free-s.segments.RoomBytes(), BlockLength)
}

// fresh returns the length of the plan's new data in bytes.
func (p *writePlan) fresh() (bytes int64) {
	for i := range p.rec.Fresh {
		bytes += int64(p.rec.Fresh[i].Blocks) * BlockLength
	}
	return bytes
}

// checkRoom refuses new data that would not fit.
func (s *Store) checkRoom(p *writePlan) error {
	if s.lowSpace.Load() {
		s.measureSpace()
	}
	if s.lowSpace.Load() {
		s.hurryCleaning()
		return fmt.Errorf("%w: the file system is full: %w", ErrNoSpace, syscall.ENOSPC)
	}
	if s.opts.CapacityBytes == 0 {
		return nil
	}
	if s.LiveBytes()+p.fresh() > s.opts.CapacityBytes {
		return fmt.Errorf("%w: its capacity is %d bytes", ErrNoSpace, s.opts.CapacityBytes)
	}
	if s.crowded(p.fresh()) {
		return fmt.Errorf("%w: it takes %d bytes on the disk, its capacity is %d bytes", ErrNoSpace, s.disk.Load(), s.opts.CapacityBytes)
	}
	return nil
}

// crowded reports whether so many bytes do not fit under the capacity because of
// what else the store takes on the disk.
func (s *Store) crowded(bytes int64) bool {
	// The rest of the slack is for a segment that is moved and for the two files of a
	// checkpoint, which are there before what they replace is gone.
	return s.opts.CapacityBytes > 0 && s.disk.Load()+bytes > s.opts.CapacityBytes+s.slack()*5/8
}

// awaitCleaning is called by a write of length bytes that dead data leaves no room
// for, and reports whether cleaning has made some.
func (s *Store) awaitCleaning(ctx context.Context, length int64) bool {
	if s.LiveBytes()+length > s.opts.CapacityBytes || s.lowSpace.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, roomTime)
	defer cancel()
	for s.crowded(length) {
		s.hurryCleaning()
		finished, err := s.checkpoints.next()
		if err != nil {
			return false
		}
		select {
		case <-finished:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// hurryCleaning has the store look now whether there is something to clean.
func (s *Store) hurryCleaning() {
	select {
	case s.cleanNow <- struct{}{}:
	default:
	}
}

// spaceError makes an error that means a full file system an ErrNoSpace.
func spaceError(err error) error {
	if (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
