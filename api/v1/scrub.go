package v1

import "time"

// ScrubRequest is the request of POST /v1/store/scrub.
type ScrubRequest struct {
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
}

// ScrubProgress is in the lines of progress of a scrub.
type ScrubProgress struct {
	TotalBytes int64 `json:"total_bytes"`
	ReadBytes  int64 `json:"read_bytes"`
	Damaged    int   `json:"damaged_extents"`
}

// ScrubResult is in the last line of the response.
type ScrubResult struct {
	ScrubProgress
	Damages     []Damage `json:"damages"`
	Metadata    []string `json:"metadata,omitempty"`
	MendedBytes int64    `json:"mended_bytes,omitempty"`
	Mended      []Mended `json:"mended,omitempty"`
}

// Damage is an extent that cannot be read as it was written. Block and Blocks are
// blocks of 4096 bytes.
type Damage struct {
	Extent   uint64 `json:"extent"`
	Segment  string `json:"segment"`
	Block    uint32 `json:"block"`
	Blocks   int    `json:"blocks"`
	Reason   string `json:"reason"`
	Uses     []Use  `json:"uses"`
	MoreUses int    `json:"more_uses,omitempty"`
}

// Use is a range of bytes of a volume, a file or a snapshot.
type Use struct {
	Volume   string `json:"volume,omitempty"`
	File     string `json:"file,omitempty"`
	Snapshot uint64 `json:"snapshot,omitempty"`
	Offset   int64  `json:"offset"`
	Length   int64  `json:"length"`
}

// Mended is a file of which one copy was damaged and restored from the other.
type Mended struct {
	File  string    `json:"file"`
	Why   string    `json:"why"`
	When  time.Time `json:"when"`
	Times int       `json:"times"`
}
