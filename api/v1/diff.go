package v1

// The kinds of a DiffRange.
const (
	DiffData = "data"
	DiffHole = "hole" // it reads as zeros, and takes no space
)

// DiffRanges is in the lines of progress of GET /v1/volumes/{name}/diff.
type DiffRanges struct {
	Ranges []DiffRange `json:"ranges"`
}

// DiffRange is a range of bytes in which a volume may differ from another one.
type DiffRange struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Kind   string `json:"kind"` // in the volume
}

// Diff is in the last line of the response.
type Diff struct {
	SizeBytes     int64 `json:"size_bytes"`
	BaseSizeBytes int64 `json:"base_size_bytes"` // 0 without a base
	Ranges        int64 `json:"ranges"`          // how many there are
	DataBytes     int64 `json:"data_bytes"`
	HoleBytes     int64 `json:"hole_bytes"`
}
