package v1

import "time"

// Stream describes a stream that was sent or received.
type Stream struct {
	// Store is the identity of the store that made it, Volume that of the volume, Snapshot
	// that of the snapshot and Base that of the base, in hexadecimal; empty where there is
	// none.
	Store        string    `json:"store"`
	Volume       string    `json:"volume,omitempty"`
	VolumeName   string    `json:"volume_name,omitempty"`
	Snapshot     string    `json:"snapshot,omitempty"`
	SnapshotName string    `json:"snapshot_name,omitempty"`
	Base         string    `json:"base,omitempty"`
	BaseName     string    `json:"base_name,omitempty"`
	File         bool      `json:"file,omitempty"`
	SizeBytes    int64     `json:"size_bytes"`
	BaseBytes    int64     `json:"base_bytes,omitempty"`
	Created      time.Time `json:"created"`
	// StartBytes is where it begins: more than 0 where it continues another one.
	StartBytes int64  `json:"start_bytes,omitempty"`
	Frames     uint64 `json:"frames"`
	Records    uint64 `json:"records"`
	DataBytes  int64  `json:"data_bytes"`
	HoleBytes  int64  `json:"hole_bytes"`
	// StreamBytes is its length, compressed, but not encrypted.
	StreamBytes int64 `json:"stream_bytes"`
}

// Received is a stream that was received as a volume or a file.
type Received struct {
	Name string `json:"name"`
	// MadeSnapshot is the snapshot that was made.
	MadeSnapshot string `json:"made_snapshot,omitempty"`
	Stream       Stream `json:"stream"`
}

// Partial is a stream that ended too early, or is being received.
type Partial struct {
	Name        string    `json:"name"`
	Snapshot    string    `json:"snapshot,omitempty"`
	Base        string    `json:"base,omitempty"`
	OffsetBytes int64     `json:"offset_bytes"`
	SizeBytes   int64     `json:"size_bytes"`
	Began       time.Time `json:"began"`
	// Token is what the sender continues with.
	Token     string `json:"token,omitempty"`
	Receiving bool   `json:"receiving,omitempty"`
}
