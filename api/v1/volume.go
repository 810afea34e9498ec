package v1

import "time"

// Volume describes a volume.
type Volume struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	SizeBytes int64     `json:"size_bytes"`
	ReadOnly  bool      `json:"read_only"`
	Origin    string    `json:"origin,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	LUNs      []string  `json:"luns"`
}

// CreateVolume is the request of POST /v1/volumes.
type CreateVolume struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
}

// Resize is the request for another size of a volume or a file, or for a hidden volume.
type Resize struct {
	SizeBytes int64 `json:"size_bytes"`
}

// NewName is the request for a snapshot, a clone, or another name.
type NewName struct {
	Name string `json:"name"`
}

// Revert is the request that gives a volume the content of a snapshot; without Volume it is
// the one that the snapshot was made of.
type Revert struct {
	Volume string `json:"volume,omitempty"`
}

// FinishVolume is the request that names the volume Scratch.
type FinishVolume struct {
	Scratch string `json:"scratch"`
}

// DataRange is the response of GET /v1/volumes/{name}/next-data; Length is 0 if there
// is no data.
type DataRange struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}
