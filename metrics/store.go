package metrics

import (
	"odx/admin"
	"odx/backstore"
	"odx/latency"
	"odx/monitor"
)

// storeFamilies are about the extent store.
func storeFamilies() []Family {
	bytes := func(name, help string, value func(*backstore.Figures) int64) Family {
		return one(Gauge, name, help, func(s *monitor.Sample) float64 { return float64(value(&s.Figures.Store)) })
	}
	total := func(name, help string, value func(*backstore.Figures) uint64) Family {
		return one(Counter, name, help, func(s *monitor.Sample) float64 { return float64(value(&s.Figures.Store)) })
	}
	scrub := func(name, help string, value func(*backstore.LastScrub) float64) Family {
		return one(Gauge, name, help, func(s *monitor.Sample) float64 { return value(&s.Figures.Store.LastScrub) })
	}
	type f = backstore.Figures
	return []Family{
		bytes("odx_store_capacity_bytes", "How much live data there can be: what there is, and what is free.", func(f *f) int64 { return f.LiveBytes + f.FreeBytes }),
		bytes("odx_store_free_bytes", "How much new data fits.", func(f *f) int64 { return f.FreeBytes }),
		bytes("odx_store_live_bytes", "The length of all extents that something refers to, those in segments of other stores among them.", func(f *f) int64 { return f.LiveBytes }),
		bytes("odx_store_physical_bytes", "The length of the segments: live and dead data.", func(f *f) int64 { return f.PhysicalBytes }),
		bytes("odx_store_reclaimable_bytes", "Dead data, which cleaning reclaims.", func(f *f) int64 { return f.ReclaimableBytes }),
		bytes("odx_store_adopted_bytes", "Live data that lies in segments of other stores of the pool, and is brought home in the background.", func(f *f) int64 { return f.AdoptedBytes }),
		total("odx_store_brought_home_bytes_total", "Data that was moved here from segments of other stores.", func(f *f) uint64 { return f.Cleaning.BroughtHomeBytes }),
		bytes("odx_store_lent_bytes", "The length of the segments that other stores of the pool hold.", func(f *f) int64 { return f.LentBytes }),
		bytes("odx_store_lent_dead_bytes", "Dead data in segments that other stores hold, which is not reclaimable until they let go.", func(f *f) int64 { return f.LentDeadBytes }),
		bytes("odx_store_disk_bytes", "What the store takes on the disk.", func(f *f) int64 { return f.DiskBytes }),
		bytes("odx_store_reserve_bytes", "What is kept for work on a full disk, a part of odx_store_disk_bytes.", func(f *f) int64 { return f.ReserveBytes }),
		bytes("odx_store_metadata_bytes", "The length of the metadata, a part of odx_store_disk_bytes.", func(f *f) int64 { return f.MetadataBytes }),
		one(Gauge, "odx_store_warning_bytes", "The use at which initiators are warned; 0: never.", func(s *monitor.Sample) float64 { return float64(s.Figures.Status.Vitals.WarnBytes) }),
		one(Gauge, "odx_store_used_bytes", "What is not free of the capacity that the store had at its start, whatever takes it.", func(s *monitor.Sample) float64 { return float64(s.Figures.Status.Vitals.UsedBytes) }),
		one(Gauge, "odx_store_provisioned_bytes", "What all volumes and files could grow to, together.", func(s *monitor.Sample) float64 { return float64(s.Figures.ProvisionedBytes) }),
		one(Gauge, "odx_host_free_bytes", "What the file system of the store has free.", func(s *monitor.Sample) float64 { return float64(s.Figures.HostFreeBytes) }),
		one(Gauge, "odx_store_logical_bytes", "What volumes and files map, at odx_store_measured_timestamp_seconds.", func(s *monitor.Sample) float64 { return float64(s.Measured.LogicalBytes) }),
		one(Gauge, "odx_store_dedup_ratio", "Logical bytes divided by live bytes, at odx_store_measured_timestamp_seconds.", func(s *monitor.Sample) float64 { return s.Measured.DedupRatio }),
		one(Gauge, "odx_store_measured_timestamp_seconds", "When what has to be counted in the maps was measured; 0: not yet. A scrape starts it every 5 minutes, or less often in a large store.", func(s *monitor.Sample) float64 { return seconds(s.Measured.At) }),
		one(Gauge, "odx_volumes", "Volumes.", func(s *monitor.Sample) float64 { return float64(s.Figures.Volumes) }),
		one(Gauge, "odx_files", "Files.", func(s *monitor.Sample) float64 { return float64(s.Figures.Files) }),
		one(Gauge, "odx_snapshots", "Snapshots, those of tokens among them.", func(s *monitor.Sample) float64 { return float64(s.Figures.Store.Snapshots) }),
		truth("odx_store_failed", "1 when the store is read-only until the next start.", func(s *monitor.Sample) bool { return s.Figures.Status.Vitals.StoreFailure != "" }),
		truth("odx_store_full", "1 when the file system of the store has no room for new data.", func(s *monitor.Sample) bool { return s.Figures.Status.Vitals.StoreFull }),
		one(Gauge, "odx_damage", "Things that were found damaged since the start, and that no copy mended.", func(s *monitor.Sample) float64 {
			return float64(len(s.Figures.Status.Damage) + s.Figures.Status.MoreDamage)
		}),
		one(Gauge, "odx_mended", "Files of metadata that were mended from their other copy since the start, at most 100.", func(s *monitor.Sample) float64 { return float64(s.Figures.Store.Mended) }),

		bytes("odx_journal_bytes", "What a start after a crash would replay.", func(f *f) int64 { return f.JournalBytes }),
		{Name: "odx_journal_sync_duration_seconds", Help: "How long the disk took to make records and their data durable.", Type: Histogram,
			durations: func(s *monitor.Sample, emit func(*admin.Durations, ...string)) {
				emit(durations(&s.Figures.Store.Journal.Syncs))
			}},
		total("odx_journal_sync_failures_total", "Syncs of the journal that failed.", func(f *f) uint64 { return f.Journal.Failures }),
		{Name: "odx_checkpoint_duration_seconds", Help: "How long checkpoints took.", Type: Histogram,
			durations: func(s *monitor.Sample, emit func(*admin.Durations, ...string)) {
				emit(durations(&s.Figures.Store.Checkpoints.Took))
			}},
		total("odx_checkpoint_failures_total", "Checkpoints that failed; the journal keeps everything until one is stored.", func(f *f) uint64 { return f.Checkpoints.Failures }),
		one(Gauge, "odx_checkpoint_timestamp_seconds", "When the last checkpoint was stored; 0: none was since the start.", func(s *monitor.Sample) float64 { return seconds(s.Figures.Store.Checkpoints.Last) }),
		total("odx_clean_moved_bytes_total", "Live data that cleaning moved out of segments that are mostly dead.", func(f *f) uint64 { return f.Cleaning.MovedBytes }),
		total("odx_clean_segments_total", "Segments that cleaning has emptied.", func(f *f) uint64 { return f.Cleaning.Segments }),
		total("odx_clean_failures_total", "Attempts of cleaning that failed.", func(f *f) uint64 { return f.Cleaning.Failures }),
		scrub("odx_scrub_timestamp_seconds", "When the last scrub ended; 0: there was none.", func(l *backstore.LastScrub) float64 { return seconds(l.Ended) }),
		scrub("odx_scrub_read_bytes", "What the last scrub read and verified.", func(l *backstore.LastScrub) float64 { return float64(l.ReadBytes) }),
		scrub("odx_scrub_damaged_extents", "Extents that the last scrub found damaged.", func(l *backstore.LastScrub) float64 { return float64(l.Damaged) }),
		scrub("odx_scrub_lost_metadata", "Parts of the metadata that the last scrub found lost.", func(l *backstore.LastScrub) float64 { return float64(l.LostRows) }),
		scrub("odx_scrub_mended_bytes", "Metadata that the last scrub mended from the other copy.", func(l *backstore.LastScrub) float64 { return float64(l.MendedBytes) }),
	}
}

// durations returns a histogram of the store.
func durations(c *latency.Counts) *admin.Durations {
	return &admin.Durations{Sum: c.Sum, Counts: c.Buckets[:], Bounds: latency.Bounds()}
}
