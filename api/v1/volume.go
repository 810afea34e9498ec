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

// CreateVolume asks for POST /v1/volumes.
type CreateVolume struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
}

// Resize asks for another size of a volume or a file, or for a volume that is started.
type Resize struct {
	SizeBytes int64 `json:"size_bytes"`
}

// NewName asks for a snapshot, a clone, or another name.
type NewName struct {
	Name string `json:"name"`
}

// FinishVolume asks for the name of a volume that was started as Scratch.
type FinishVolume struct {
	Scratch string `json:"scratch"`
}

// DataRange is the answer of GET /v1/volumes/{name}/next-data; Length is 0 where
// there is no data.
type DataRange struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}
