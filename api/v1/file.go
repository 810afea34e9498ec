package v1

import "time"

// File describes a file.
type File struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	SizeBytes int64     `json:"size_bytes"`
	Created   time.Time `json:"created,omitzero"`
}

// CreateFile asks for POST /v1/files: SizeBytes of zeros, or what From has.
type CreateFile struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
	From      string `json:"from,omitempty"`
}

// StartFile asks for a hidden file that is to become another one.
type StartFile struct {
	SizeBytes int64  `json:"size_bytes,omitempty"`
	From      string `json:"from,omitempty"`
}

// FinishFile asks for the name of a file that was started as Scratch.
type FinishFile struct {
	Scratch   string `json:"scratch"`
	Overwrite bool   `json:"overwrite,omitempty"`
}
