package v1

import "time"

// Store is the response of GET /v1/store.
type Store struct {
	ID                string        `json:"id"`
	Volumes           []VolumeStats `json:"volumes"`
	Files             []VolumeStats `json:"files,omitempty"`
	Snapshots         int           `json:"snapshots"`
	LogicalBytes      int64         `json:"logical_bytes"`
	FileBytes         int64         `json:"file_bytes"`
	SnapshotBytes     int64         `json:"snapshot_bytes"`
	ClonedBytes       int64         `json:"cloned_bytes"`
	DeduplicatedBytes int64         `json:"deduplicated_bytes"`
	LiveBytes         int64         `json:"live_bytes"`
	PhysicalBytes     int64         `json:"physical_bytes"`
	DiskBytes         int64         `json:"disk_bytes"`
	ReserveBytes      int64         `json:"reserve_bytes"`
	MetadataBytes     int64         `json:"metadata_bytes"`
	ReclaimableBytes  int64         `json:"reclaimable_bytes"`
	AdoptedBytes      int64         `json:"adopted_bytes,omitempty"`   // of live_bytes, in segments of other stores
	LentBytes         int64         `json:"lent_bytes,omitempty"`      // of segments that other stores hold
	LentDeadBytes     int64         `json:"lent_dead_bytes,omitempty"` // dead in those, and not reclaimable
	DedupRatio        float64       `json:"dedup_ratio"`
	CapacityBytes     int64         `json:"capacity_bytes"`
	DedupUnit         int           `json:"dedup_unit"` // bytes
	JournalBytes      int64         `json:"journal_bytes"`
	FreeBytes         int64         `json:"free_bytes"`
	HostFreeBytes     int64         `json:"host_free_bytes"`
	ProvisionedBytes  int64         `json:"provisioned_bytes"`
	WarnBytes         int64         `json:"warn_bytes,omitempty"`
	Tokens            Tokens        `json:"tokens"`
	Scrub             LastScrub     `json:"scrub"`
	Damage            []Damaged     `json:"damage"`
	MoreDamage        int           `json:"more_damage,omitempty"`
	Moved             bool          `json:"moved,omitempty"`
}

// VolumeStats are figures about a volume or a file.
type VolumeStats struct {
	Name        string `json:"name"`
	ID          string `json:"id"`
	SizeBytes   int64  `json:"size_bytes"`
	MappedBytes int64  `json:"mapped_bytes"`
}

// Tokens summarizes the live tokens.
type Tokens struct {
	Count       int   `json:"count"`
	PinnedBytes int64 `json:"pinned_bytes"`
}

// LastScrub is the result of the last scrub. Version is 1, or 0 if there was none.
type LastScrub struct {
	Version     int       `json:"version"`
	Ended       time.Time `json:"ended"`
	Since       time.Time `json:"since"`
	Took        string    `json:"took,omitempty"`
	ReadBytes   int64     `json:"read_bytes"`
	Damaged     int       `json:"damaged_extents"`
	MendedBytes int64     `json:"mended_bytes"`
	LostRows    int       `json:"lost_metadata"`
}

// Damaged is a damaged part of the store.
type Damaged struct {
	What  string    `json:"what"`
	Error string    `json:"error"`
	Found time.Time `json:"found"`
	Times int       `json:"times"`
}

// CheckResult is the response of POST /v1/store/check.
type CheckResult struct {
	Sound    bool     `json:"sound"`
	Findings []string `json:"findings"`
}

// CleanResult is the response of POST /v1/store/clean.
type CleanResult struct {
	FreedBytes    int64 `json:"freed_bytes"`
	PhysicalBytes int64 `json:"physical_bytes"`
}

// StoreHold is what another store of the pool holds: an element of GET /v1/store/holds.
type StoreHold struct {
	Store    string `json:"store"` // hexadecimal
	Segments int    `json:"segments"`
	Bytes    int64  `json:"bytes"`
}

// EndedHolds is the response of DELETE /v1/store/holds/{store}.
type EndedHolds struct {
	Segments int `json:"segments"`
}
