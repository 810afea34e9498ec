package backstore

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
)

// Stats are figures about a store, as they were at about one point in time.
type Stats struct {
	Volumes []VolumeStats
	Files   []VolumeStats
	// Snapshots is the number of snapshots that are not deleted.
	Snapshots int
	// LogicalBytes is what volumes and files map, the sum of their MappedBytes;
	// FileBytes is the part of the files.
	LogicalBytes int64
	FileBytes    int64
	// LogicalBytes and SnapshotBytes together are ClonedBytes, DeduplicatedBytes and
	// LiveBytes together, unless something changes while they are counted, or extents
	// of several blocks have lost some of them.
	//
	// SnapshotBytes is what only snapshots map, those of tokens for example.
	SnapshotBytes int64
	// ClonedBytes is what volumes and files map once more since one is a copy of the
	// other: they share the nodes of their maps.
	ClonedBytes int64
	// DeduplicatedBytes is what is mapped once more since the same data was written,
	// or was copied to where nodes cannot be shared.
	DeduplicatedBytes int64
	// LiveBytes is the length of all extents that something refers to, here or in segments of
	// other stores.
	LiveBytes int64
	// PhysicalBytes is the length of the segments, live and dead data together.
	PhysicalBytes int64
	// DiskBytes is what the store takes on the disk: PhysicalBytes, ReserveBytes,
	// MetadataBytes, and the files of the journal.
	DiskBytes int64
	// ReserveBytes is kept for work on a full disk.
	ReserveBytes  int64
	MetadataBytes int64
	// ReclaimableBytes is the dead data in the segments: what Clean gives back.
	ReclaimableBytes int64
	// DedupRatio is LogicalBytes divided by LiveBytes, 1 for an empty store.
	// Data that only snapshots map makes it smaller.
	DedupRatio float64
	// AdoptedBytes is the part of LiveBytes that lies in segments of other stores, LentBytes the
	// length of the segments that other stores hold. LentDeadBytes is the dead data in those, which
	// is not reclaimable.
	AdoptedBytes  int64
	LentBytes     int64
	LentDeadBytes int64
	// CapacityBytes bounds LiveBytes, and DiskBytes within 2 % or 256 MiB; 0 means
	// that only the file system does.
	CapacityBytes int64
	// DedupUnit is the largest extent in bytes.
	DedupUnit int
	// JournalBytes is what opening the store after a crash would replay.
	JournalBytes int64
	// Damage is what was found damaged since the store was opened, at most 100
	// things; MoreDamage is how many there are beyond that.
	Damage     []Damaged
	MoreDamage int
}

// VolumeStats are figures about a volume or a file.
type VolumeStats struct {
	Name string
	// ID is the volume's permanent number in hexadecimal.
	ID          string
	SizeBytes   int64
	MappedBytes int64
}

// Stats returns figures about the store. It reads the maps of all volumes,
// shared parts once.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	if err := s.life.usable(); err != nil {
		return Stats{}, err
	}
	s.auditMu.Lock()
	defer s.auditMu.Unlock()
	st := Stats{CapacityBytes: s.opts.CapacityBytes, DedupUnit: s.DedupUnit(), JournalBytes: s.journalBytes(), DedupRatio: 1}
	var tally blockmap.Tally
	for _, v := range s.catalog.all() {
		if err := ctx.Err(); err != nil {
			return Stats{}, err
		}
		vs, err := v.stats(&tally)
		if metadataDamage(err) {
			s.damage.Note(v.String(), err) // what of it can be read is not known
			err = nil
		}
		if err != nil {
			return Stats{}, fmt.Errorf("%v: %w", v, err)
		}
		if v.file {
			st.Files = append(st.Files, vs)
			st.FileBytes += vs.MappedBytes
		} else {
			st.Volumes = append(st.Volumes, vs)
		}
		st.LogicalBytes += vs.MappedBytes
	}
	mapped := int64(tally.Distinct) * BlockLength // by volumes and files
	var err error
	if st.Snapshots, err = s.tallySnapshots(ctx, &tally); err != nil {
		return Stats{}, err
	}
	all := int64(tally.Distinct) * BlockLength
	st.ClonedBytes, st.SnapshotBytes = st.LogicalBytes-mapped, all-mapped
	st.LiveBytes, st.PhysicalBytes = s.LiveBytes(), s.PhysicalBytes()
	st.DeduplicatedBytes = max(all-st.LiveBytes, 0)
	st.DiskBytes, st.ReserveBytes, st.MetadataBytes = s.DiskBytes(), s.ReserveBytes(), s.parts.kv.Stats().Bytes
	st.AdoptedBytes, st.LentBytes, st.LentDeadBytes = s.AdoptedBytes(), s.LentBytes(), s.LentDeadBytes()
	st.ReclaimableBytes = s.reclaimable(st.PhysicalBytes, st.LiveBytes-st.AdoptedBytes)
	st.Damage, st.MoreDamage = s.Damage()
	if st.LiveBytes > 0 {
		st.DedupRatio = float64(st.LogicalBytes) / float64(st.LiveBytes)
	}
	return st, nil
}

// LiveBytes returns the length of all extents that something refers to, those in segments of other
// stores too: once they are brought home they take their space here.
func (s *Store) LiveBytes() int64 { return s.space.liveBytes() }

// PhysicalBytes returns the length of all segments, and of the files that wait
// to become segments again.
func (s *Store) PhysicalBytes() int64 {
	for _, id := range s.parts.segments.List() {
		s.parts.segments.Bytes(id) // it is remembered
	}
	return s.parts.segments.TotalBytes()
}

// ReserveBytes returns the length of the files that are kept for a full disk. They
// are part of DiskBytes.
func (s *Store) ReserveBytes() int64 { return s.space.reserveBytes() }

// DiskBytes returns what the store takes on the disk: segments, journal, metadata
// and reserve.
func (s *Store) DiskBytes() int64 { return s.space.diskBytes() }

// FreeBytes returns how many bytes of new data fit: into the capacity, if there
// is one, and onto the host's file system.
func (s *Store) FreeBytes() (int64, error) { return s.space.freeBytes() }

// HostFreeBytes returns what the file system of the store has free.
func (s *Store) HostFreeBytes() (int64, error) { return s.opts.FS.Free(s.opts.Dir) }

// tallySnapshots counts what snapshots map, and returns how many there are.
func (s *Store) tallySnapshots(ctx context.Context, tally *blockmap.Tally) (n int, err error) {
	for _, id := range s.catalog.snapshotIDs() {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		sn, err := s.Snapshot(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return n, err
		}
		_, err = s.parts.forest.Count(sn.state.root, tally)
		sn.Release()
		if metadataDamage(err) {
			s.damage.Note(fmt.Sprintf("snapshot %d", id), err)
			err = nil
		}
		if err != nil {
			return n, fmt.Errorf("snapshot %d: %w", id, err)
		}
		n++
	}
	return n, nil
}

// stats counts the volume's blocks on a held tree, so that writers do not wait.
func (v *Volume) stats(tally *blockmap.Tally) (VolumeStats, error) {
	s := v.store
	s.opMu.RLock()
	v.mu.RLock()
	vs := VolumeStats{Name: v.Name(), ID: fmt.Sprintf("%x", v.id), SizeBytes: v.size}
	root := v.root
	err := s.parts.forest.Hold(root)
	v.mu.RUnlock()
	s.opMu.RUnlock()
	if err != nil {
		return vs, s.life.unread(v.String(), 0, err)
	}
	blocks, err := s.parts.forest.Count(root, tally)
	vs.MappedBytes = int64(blocks) * BlockLength
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	if derr := s.dropTree(root); derr != nil {
		return vs, s.life.fail(derr)
	}
	return vs, err
}

// journalBytes returns what opening the store after a crash would replay.
func (s *Store) journalBytes() int64 {
	if s.parts.journal == nil {
		return 0 // it is damaged, and the store is only read
	}
	return s.parts.journal.Bytes()
}

// MetadataStats are figures about what describes the data.
type MetadataStats struct {
	// Extents is the number of extents.
	Extents int64
	// Bytes is the length of all keys and values in the metadata engine.
	Bytes int64
}

// Metadata stores a checkpoint and reads all metadata to measure it.
func (s *Store) Metadata(ctx context.Context) (st MetadataStats, err error) {
	if s.parts.journal != nil {
		if err := s.Checkpoint(ctx); err != nil {
			return st, err
		}
	}
	err = s.parts.extents.ScanStored(func(extent.ID, *extent.Extent) bool {
		st.Extents++
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return st, err
	}
	return st, s.parts.kv.Scan(nil, func(key, value []byte) error {
		st.Bytes += int64(len(key) + len(value))
		return ctx.Err()
	})
}
