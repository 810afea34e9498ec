package backstore

import (
	"context"
	"fmt"

	"odx/backstore/extent"
)

// Stats are figures about a store, as they were at about one point in time.
type Stats struct {
	Volumes []VolumeStats `json:"volumes"`
	Files   []VolumeStats `json:"files,omitempty"`
	// Snapshots is the number of snapshots that are not deleted.
	Snapshots int `json:"snapshots"`
	// LogicalBytes is what volumes and files map, the sum of their MappedBytes.
	LogicalBytes int64 `json:"logical_bytes"`
	// LiveBytes is the length of all extents that something refers to.
	LiveBytes int64 `json:"live_bytes"`
	// PhysicalBytes is the length of the segments, live and dead data together.
	PhysicalBytes int64 `json:"physical_bytes"`
	// ReclaimableBytes is the dead data in the segments: what Clean gives back.
	ReclaimableBytes int64 `json:"reclaimable_bytes"`
	// DedupRatio is LogicalBytes divided by LiveBytes, 1 for an empty store.
	// Data that only snapshots map makes it smaller.
	DedupRatio float64 `json:"dedup_ratio"`
	// CapacityBytes bounds LiveBytes; 0 means that only the file system does.
	CapacityBytes int64 `json:"capacity_bytes"`
	// DedupUnit is the largest extent in bytes.
	DedupUnit int `json:"dedup_unit"`
	// JournalBytes is what opening the store after a crash would replay.
	JournalBytes int64 `json:"journal_bytes"`
}

// VolumeStats are figures about a volume or a file.
type VolumeStats struct {
	Name string `json:"name"`
	// ID is the volume's permanent number in hexadecimal.
	ID          string `json:"id"`
	SizeBytes   int64  `json:"size_bytes"`
	MappedBytes int64  `json:"mapped_bytes"`
}

// Stats returns figures about the store. It reads the maps of all volumes,
// shared parts once.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	if err := s.usable(); err != nil {
		return Stats{}, err
	}
	s.auditMu.Lock()
	defer s.auditMu.Unlock()
	st := Stats{CapacityBytes: s.opts.CapacityBytes, DedupUnit: s.DedupUnit(), JournalBytes: s.journalBytes(), DedupRatio: 1}
	counted := make(map[uint64]uint64)
	for _, v := range s.spaces() {
		if err := ctx.Err(); err != nil {
			return Stats{}, err
		}
		vs, err := v.stats(counted)
		if err != nil {
			return Stats{}, fmt.Errorf("%v: %w", v, err)
		}
		if v.file {
			st.Files = append(st.Files, vs)
		} else {
			st.Volumes = append(st.Volumes, vs)
		}
		st.LogicalBytes += vs.MappedBytes
	}
	s.tableMu.Lock()
	for _, sn := range s.snapshots {
		if !sn.deleted {
			st.Snapshots++
		}
	}
	s.tableMu.Unlock()
	st.LiveBytes, st.PhysicalBytes = s.LiveBytes(), s.PhysicalBytes()
	headers := int64(len(s.segments.List())) * BlockLength
	st.ReclaimableBytes = max(st.PhysicalBytes-st.LiveBytes-headers, 0)
	if st.LiveBytes > 0 {
		st.DedupRatio = float64(st.LogicalBytes) / float64(st.LiveBytes)
	}
	return st, nil
}

// stats counts the volume's blocks on a held tree, so that writers do not wait.
func (v *Volume) stats(counted map[uint64]uint64) (VolumeStats, error) {
	s := v.store
	s.opMu.RLock()
	v.mu.RLock()
	vs := VolumeStats{Name: v.Name(), ID: fmt.Sprintf("%x", v.id), SizeBytes: v.size}
	root := v.root
	err := s.forest.Hold(root)
	v.mu.RUnlock()
	s.opMu.RUnlock()
	if err != nil {
		return vs, s.unread(v.String(), 0, err)
	}
	blocks, err := s.forest.Mapped(root, counted)
	vs.MappedBytes = int64(blocks) * BlockLength
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	if derr := s.dropTree(root); derr != nil {
		return vs, s.fail(derr)
	}
	return vs, err
}

// journalBytes returns what opening the store after a crash would replay.
func (s *Store) journalBytes() int64 {
	if s.journal == nil {
		return 0 // it is damaged, and the store is only read
	}
	return s.journal.Bytes()
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
	if s.journal != nil {
		if err := s.Checkpoint(ctx); err != nil {
			return st, err
		}
	}
	err = s.extents.ScanStored(func(extent.ID, *extent.Extent) bool {
		st.Extents++
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return st, err
	}
	return st, s.kv.Scan(nil, func(key, value []byte) error {
		st.Bytes += int64(len(key) + len(value))
		return ctx.Err()
	})
}
