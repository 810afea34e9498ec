package backstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore/damage"
	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/record"
	"odx/backstore/reserve"
	"odx/backstore/segment"
	"odx/backstore/vfs"
)

// space knows what the store takes on the disk, and what it may take: its capacity, the
// files that are kept for a full disk, spare segments. It decides whether new data fits.
type space struct {
	parts       *parts
	opts        *Options
	log         *logrus.Entry
	damage      *damage.Log
	checkpoints *checkpointer

	reserve *reserve.Pool
	// journalFile is the length that files of the journal grow to.
	journalFile int64
	low         atomic.Bool   // the host's file system has no room for new data
	disk        atomic.Int64  // about what DiskBytes returns, where there is a capacity
	cleanNow    chan struct{} // has an element when a write waits for cleaning

	measuring  sync.Mutex // held by measure; guards the next two
	reserveErr string     // that was logged last
	namesHeld  bool       // in the directories of the store, since the disk had room last

	onFull     atomic.Pointer[func(ctx context.Context, need int64) bool]
	makingRoom sync.Mutex // held while onFull runs. Outermost, like Store.auditMu
}

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
func (sp *space) openReserve() error {
	if sp.reserve != nil {
		return nil
	}
	total, err := sp.opts.FS.Total(sp.opts.Dir)
	if err != nil {
		return err
	}
	least := int64(leastReserve)
	if sp.opts.tuning.reserveBytes > 0 {
		least, total = sp.opts.tuning.reserveBytes, 0
	}
	sp.journalFile = min(journal.DefaultFileBytes, total/reservePart)
	if c := sp.opts.CapacityBytes; c > 0 {
		sp.journalFile = min(sp.journalFile, sp.slack()/filePart)
		total = min(total, c+sp.slack(), sp.slack()/filePart*reservePart)
	}
	sp.journalFile = max(sp.journalFile, least)
	sp.reserve, err = reserve.Open(reserve.Options{
		FS: sp.opts.FS, Dir: filepath.Join(sp.opts.Dir, layout.ReserveDir), Files: reserveFiles,
		// A segment that was sealed because the next data did not fit is long enough, too.
		Bytes: max(min(total/reservePart, sp.opts.CacheBytes/4, (segment.DefaultSegmentBlocks-record.MaxBlocks)*BlockLength), least) &^ (BlockLength - 1),
	})
	return err
}

// giveUp takes a file that the store needs no more: the reserve may, and on a full disk
// the journal.
func (sp *space) giveUp(path string) error {
	switch {
	case sp.reserve == nil:
		return sp.opts.FS.Remove(path)
	case sp.reserve.Full() && sp.parts.journal != nil && sp.low.Load() && sp.parts.journal.Lacks():
		return sp.parts.journal.Give(path)
	}
	return sp.reserve.Give(path)
}

// dirtyLimit is how much changed metadata there can be: a checkpoint has to fit
// into the files of the reserve.
func (sp *space) dirtyLimit() int64 { return min(sp.opts.CacheBytes/4, sp.reserve.FileBytes()) }

// slack is how many bytes the store may take beyond its capacity.
func (sp *space) slack() int64 {
	return cmp.Or(sp.opts.tuning.slackBytes, max(sp.opts.CapacityBytes/capacityPart, capacitySlack))
}

// liveBytes returns the length of all extents that something refers to.
func (sp *space) liveBytes() int64 { return sp.parts.usage.Total() * BlockLength }

// reserveBytes returns the length of the files that are kept for a full disk.
func (sp *space) reserveBytes() int64 { return sp.reserve.Bytes() + sp.parts.segments.ReserveBytes() }

// diskBytes returns what the store takes on the disk.
func (sp *space) diskBytes() int64 {
	bytes := sp.parts.segments.TotalBytes() + sp.reserveBytes() + sp.parts.kv.Stats().Bytes
	if sp.parts.journal != nil { // it can be damaged where a store is only read
		bytes += sp.parts.journal.FileBytes()
	}
	return bytes
}

// freeBytes returns how many bytes of new data fit.
func (sp *space) freeBytes() (int64, error) {
	if sp.low.Load() {
		return 0, nil // until the reserve is whole again
	}
	free, err := sp.opts.FS.Free(sp.opts.Dir)
	if err != nil {
		return 0, err
	}
	if free < math.MaxInt64/2 {
		free += sp.parts.segments.RoomBytes() - sp.parts.segments.MissingBytes() - sp.reserve.MissingBytes()
	}
	free -= lowSpace
	if sp.opts.CapacityBytes > 0 {
		free = min(free, sp.opts.CapacityBytes-sp.liveBytes(), sp.opts.CapacityBytes+sp.slack()-sp.disk.Load())
	}
	return max(free, 0), nil
}

// measure fills the reserve and notes whether there is room for new data.
func (sp *space) measure() {
	if sp.opts.ReadOnly {
		return
	}
	sp.measuring.Lock()
	defer sp.measuring.Unlock()
	missing := spaceError(sp.fillReserve())
	if missing != nil && !errors.Is(missing, ErrNoSpace) {
		// The disk fails, and is not known to be full.
		if sp.reserveErr != missing.Error() {
			sp.log.WithError(missing).Warn("the reserve for a full disk cannot be filled; it is tried again")
		}
		sp.reserveErr, missing = missing.Error(), nil
	} else {
		sp.reserveErr = ""
	}
	free, err := sp.opts.FS.Free(sp.opts.Dir)
	if err != nil {
		return // the next one reports it
	}
	if sp.opts.CapacityBytes > 0 {
		if sp.disk.Store(sp.diskBytes()); sp.parts.segments.SpareBytes() > 0 && sp.disk.Load() > sp.opts.CapacityBytes {
			sp.dropSpares(time.Now())
			sp.disk.Store(sp.diskBytes())
		}
	}
	sp.parts.segments.Scarce(free < lowSpace)
	sp.holdNames(free)
	free, missing = roomFor(free, sp.parts.segments.RoomBytes(), missing)
	if low := missing != nil; sp.low.Swap(low) == low {
		return
	}
	entry := sp.log.WithField("free_bytes", free)
	if missing != nil {
		entry.WithError(missing).Error("the file system is full: writes of new data fail until there is room")
	} else {
		entry.Info("the file system has room again: writes continue")
	}
}

// roomFor returns what there is for new data, in bytes, and ErrNoSpace if that is too little:
// free on the file system, own in files of the store, which count once there is little else.
// missing is what the reserve lacks.
func roomFor(free, own int64, missing error) (room int64, err error) {
	if free < lowSpace {
		free += own
	}
	if missing == nil && free < lowSpace {
		missing = fmt.Errorf("%w: less than %d bytes are free", ErrNoSpace, lowSpace)
	}
	return free, missing
}

// holdNames keeps room for names in the directories of the store, where the file
// system does not by itself. measuring is held.
func (sp *space) holdNames(free int64) {
	h, ok := sp.opts.FS.(vfs.NameHolder)
	if !ok || free < lowSpace {
		sp.namesHeld = false // those that there are may be used now
		return
	}
	if sp.namesHeld {
		return
	}
	for _, name := range []string{layout.SegmentDir, layout.JournalDir, layout.CheckpointDir, layout.ReserveDir} {
		if err := h.HoldNames(filepath.Join(sp.opts.Dir, name)); err != nil {
			return // the next time; layout.ReserveDir may not exist yet
		}
	}
	sp.namesHeld = true
}

// fillReserve makes what is missing of the reserve, of files of the store that
// have no other use first.
func (sp *space) fillReserve() error {
	err := sp.parts.segments.FillReserve()
	// What a running checkpoint has taken of the reserve comes back when it ends: a spare
	// given up in its place would then be one too many, and be lost.
	for !sp.checkpoints.storing.Load() && sp.parts.segments.ReserveFull() {
		least := sp.reserve.FileBytes()
		if sp.reserve.Full() {
			if !sp.low.Load() || !sp.parts.journal.Lacks() {
				break
			}
			least = min(leastReserve, sp.journalFile)
		}
		given, giveErr := sp.parts.segments.GiveUpSpare(least)
		if giveErr != nil {
			sp.log.WithError(giveErr).Warn("a spare segment was not added to the reserve")
		}
		if !given {
			break
		}
	}
	return errors.Join(err, sp.reserve.Fill(), sp.parts.journal.Ready())
}

// scarce reports whether cleaning is to make room, however little that is.
func (sp *space) scarce() bool {
	return sp.low.Load() || sp.opts.CapacityBytes > 0 && sp.disk.Load() > sp.opts.CapacityBytes+sp.slack()/2
}

// lackingBytes returns how many bytes cleaning has to free, at least, to be of use.
func (sp *space) lackingBytes() int64 {
	free, err := sp.opts.FS.Free(sp.opts.Dir)
	if err != nil || !sp.low.Load() {
		return BlockLength
	}
	lacking := lowSpace + sp.parts.segments.MissingBytes() + sp.reserve.MissingBytes()
	return max(lacking-free-sp.parts.segments.RoomBytes(), BlockLength)
}

// cleanable returns a number that rises with what cleaning can work with: free space, and
// data that is dead.
func (sp *space) cleanable() int64 {
	free, err := sp.opts.FS.Free(sp.opts.Dir)
	if err != nil {
		free = 0
	}
	return free - sp.liveBytes()
}

// checkRoom refuses new data that would not fit.
func (sp *space) checkRoom(fresh int64) error {
	if sp.low.Load() {
		sp.measure()
	}
	if sp.low.Load() {
		sp.hurryCleaning()
		return fmt.Errorf("%w: the file system is full: %w", ErrNoSpace, syscall.ENOSPC)
	}
	if sp.opts.CapacityBytes == 0 {
		return nil
	}
	if sp.liveBytes()+fresh > sp.opts.CapacityBytes {
		return fmt.Errorf("%w: its capacity is %d bytes", ErrNoSpace, sp.opts.CapacityBytes)
	}
	if sp.crowded(fresh) {
		return fmt.Errorf("%w: it takes %d bytes on the disk, its capacity is %d bytes", ErrNoSpace, sp.disk.Load(), sp.opts.CapacityBytes)
	}
	return nil
}

// crowded reports whether so many bytes do not fit under the capacity because of
// what else the store takes on the disk.
func (sp *space) crowded(bytes int64) bool {
	// The rest of the slack is for a segment that is moved and for the two files of a
	// checkpoint, which are there before what they replace is removed.
	return sp.opts.CapacityBytes > 0 && sp.disk.Load()+bytes > sp.opts.CapacityBytes+sp.slack()*5/8
}

// awaitCleaning is called by a write of length bytes that dead data leaves no room
// for, and reports whether cleaning has made some.
func (sp *space) awaitCleaning(ctx context.Context, length int64) bool {
	if sp.liveBytes()+length > sp.opts.CapacityBytes || sp.low.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, roomTime)
	defer cancel()
	for sp.crowded(length) {
		sp.hurryCleaning()
		finished, err := sp.checkpoints.next()
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
func (sp *space) hurryCleaning() {
	select {
	case sp.cleanNow <- struct{}{}:
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

// dropSpares gives up the spare segments that have waited since before then.
func (sp *space) dropSpares(before time.Time) {
	if err := sp.parts.segments.DropSpares(before); err != nil {
		sp.log.WithError(err).Warn("a spare segment keeps its space; opening the store finds it again")
	}
}
