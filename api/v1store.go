package api

import (
	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
)

// StoreV1 returns the JSON of a store.
func StoreV1(s admin.StoreInfo) v1.Store {
	return v1.Store{
		ID: s.ID, Volumes: each(volumeStatsV1)(s.Volumes), Files: each(volumeStatsV1)(s.Files), Snapshots: s.Snapshots,
		LogicalBytes: s.LogicalBytes, FileBytes: s.FileBytes, SnapshotBytes: s.SnapshotBytes,
		ClonedBytes: s.ClonedBytes, DeduplicatedBytes: s.DeduplicatedBytes,
		LiveBytes: s.LiveBytes, PhysicalBytes: s.PhysicalBytes, DiskBytes: s.DiskBytes,
		ReserveBytes: s.ReserveBytes, MetadataBytes: s.MetadataBytes, ReclaimableBytes: s.ReclaimableBytes, AdoptedBytes: s.AdoptedBytes, LentBytes: s.LentBytes, LentDeadBytes: s.LentDeadBytes,
		DedupRatio: s.DedupRatio, CapacityBytes: s.CapacityBytes, DedupUnit: s.DedupUnit, JournalBytes: s.JournalBytes,
		FreeBytes: s.FreeBytes, HostFreeBytes: s.HostFreeBytes, ProvisionedBytes: s.ProvisionedBytes, WarnBytes: s.WarnBytes,
		Tokens: v1.Tokens(s.Tokens), Scrub: lastScrubV1(s.Scrub),
		Damage: each(damagedV1)(s.Damage), MoreDamage: s.MoreDamage, Moved: s.Moved,
	}
}

func storeOf(s v1.Store) admin.StoreInfo {
	return admin.StoreInfo{
		ID: s.ID,
		Stats: backstore.Stats{
			Volumes: each(volumeStatsOf)(s.Volumes), Files: each(volumeStatsOf)(s.Files), Snapshots: s.Snapshots,
			LogicalBytes: s.LogicalBytes, FileBytes: s.FileBytes, SnapshotBytes: s.SnapshotBytes,
			ClonedBytes: s.ClonedBytes, DeduplicatedBytes: s.DeduplicatedBytes,
			LiveBytes: s.LiveBytes, PhysicalBytes: s.PhysicalBytes, DiskBytes: s.DiskBytes,
			ReserveBytes: s.ReserveBytes, MetadataBytes: s.MetadataBytes, ReclaimableBytes: s.ReclaimableBytes, AdoptedBytes: s.AdoptedBytes, LentBytes: s.LentBytes, LentDeadBytes: s.LentDeadBytes,
			DedupRatio: s.DedupRatio, CapacityBytes: s.CapacityBytes, DedupUnit: s.DedupUnit, JournalBytes: s.JournalBytes,
		},
		Capacity: admin.Capacity{FreeBytes: s.FreeBytes, HostFreeBytes: s.HostFreeBytes, ProvisionedBytes: s.ProvisionedBytes, WarnBytes: s.WarnBytes},
		Tokens:   admin.Tokens(s.Tokens), Scrub: lastScrubOf(s.Scrub),
		Damage: each(damagedOf)(s.Damage), MoreDamage: s.MoreDamage, Moved: s.Moved,
	}
}

func volumeStatsV1(v backstore.VolumeStats) v1.VolumeStats { return v1.VolumeStats(v) }

func volumeStatsOf(v v1.VolumeStats) backstore.VolumeStats { return backstore.VolumeStats(v) }

func damagedV1(d backstore.Damaged) v1.Damaged { return v1.Damaged(d) }

func damagedOf(d v1.Damaged) backstore.Damaged { return backstore.Damaged(d) }

// lastScrubVersion is the version of a reported scrub; without one it is 0.
const lastScrubVersion = 1

func lastScrubV1(l backstore.LastScrub) v1.LastScrub {
	last := v1.LastScrub{
		Ended: l.Ended, Since: l.Since, Took: l.Took, ReadBytes: l.ReadBytes, Damaged: l.Damaged, MendedBytes: l.MendedBytes, LostRows: l.LostRows,
	}
	if !l.Since.IsZero() {
		last.Version = lastScrubVersion
	}
	return last
}

func lastScrubOf(l v1.LastScrub) backstore.LastScrub {
	return backstore.LastScrub{
		Ended: l.Ended, Since: l.Since, Took: l.Took, ReadBytes: l.ReadBytes, Damaged: l.Damaged, MendedBytes: l.MendedBytes, LostRows: l.LostRows,
	}
}

// CheckResultV1 returns the JSON of the result of a store's check.
func CheckResultV1(r admin.CheckResult) v1.CheckResult { return v1.CheckResult(r) }

func checkResultOf(r v1.CheckResult) admin.CheckResult { return admin.CheckResult(r) }

// CleanResultV1 returns the JSON of the result of cleaning.
func CleanResultV1(r admin.CleanResult) v1.CleanResult { return v1.CleanResult(r) }

func cleanResultOf(r v1.CleanResult) admin.CleanResult { return admin.CleanResult(r) }
