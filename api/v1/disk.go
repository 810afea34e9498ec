package v1

import "time"

// Disk describes a virtual disk.
type Disk struct {
	Name                string    `json:"name"`
	Format              string    `json:"format"`
	Kind                string    `json:"kind"`
	SizeBytes           int64     `json:"size_bytes"`
	FileBytes           int64     `json:"file_bytes"`
	BlockBytes          int64     `json:"block_bytes,omitempty"`
	SectorBytes         int64     `json:"sector_bytes,omitempty"`
	PhysicalSectorBytes int64     `json:"physical_sector_bytes,omitempty"`
	Blocks              int64     `json:"blocks,omitempty"`
	PlacedBlocks        int64     `json:"placed_blocks,omitempty"`
	FragmentedBlocks    int64     `json:"fragmented_blocks,omitempty"`
	LooksLike           string    `json:"looks_like,omitempty"`
	Mappable            bool      `json:"mappable"`
	ID                  string    `json:"id,omitempty"`
	DiskID              string    `json:"disk_id,omitempty"`
	Creator             string    `json:"creator,omitempty"`
	Created             time.Time `json:"created,omitzero"`
	Parents             []string  `json:"parents,omitempty"`
	Children            []string  `json:"children,omitempty"`
}

// DiskCheck is the result of the check of a virtual disk.
type DiskCheck struct {
	Sound    bool          `json:"sound"`
	Findings []DiskFinding `json:"findings"`
}

// DiskFinding is a defect of a virtual disk.
type DiskFinding struct {
	Harmless bool   `json:"harmless"`
	Text     string `json:"text"`
}

// DiskRequest is the request of POST /v1/disks.
type DiskRequest struct {
	Operation            string `json:"operation"`
	Source               string `json:"source,omitempty"`
	Destination          string `json:"destination,omitempty"`
	Overwrite            bool   `json:"overwrite,omitempty"`
	Raw                  bool   `json:"raw,omitempty"`
	Fixed                bool   `json:"fixed,omitempty"`
	Size                 int64  `json:"size_bytes,omitempty"`
	BlockLength          int64  `json:"block_bytes,omitempty"`
	SectorLength         int64  `json:"sector_bytes,omitempty"`
	PhysicalSectorLength int64  `json:"physical_sector_bytes,omitempty"`
}

// DiskProgress is in the lines of progress of an operation.
type DiskProgress struct {
	Done   int64 `json:"done_bytes"`
	Total  int64 `json:"total_bytes"`
	Mapped int64 `json:"mapped_bytes"`
	Moved  int64 `json:"moved_bytes"`
}

// DiskResult is in the last line of the response.
type DiskResult struct {
	Name            string        `json:"name"`
	MappedBytes     int64         `json:"mapped_bytes"`
	MovedBytes      int64         `json:"moved_bytes"`
	FileBytesBefore int64         `json:"file_bytes_before"`
	FileBytes       int64         `json:"file_bytes"`
	Duration        time.Duration `json:"duration_ns"`
	Warnings        []string      `json:"warnings,omitempty"`
}
