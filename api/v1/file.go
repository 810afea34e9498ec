package v1

import "time"

// File describes a file.
type File struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	SizeBytes int64     `json:"size_bytes"`
	Created   time.Time `json:"created,omitzero"`
}

// CreateFile is the request of POST /v1/files: SizeBytes of zeros, or a copy of From.
type CreateFile struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
	From      string `json:"from,omitempty"`
}

// StartFile is the request for a hidden file that is named later.
type StartFile struct {
	SizeBytes int64  `json:"size_bytes,omitempty"`
	From      string `json:"from,omitempty"`
}

// FinishFile is the request that names the file Scratch.
type FinishFile struct {
	Scratch   string `json:"scratch"`
	Overwrite bool   `json:"overwrite,omitempty"`
}
