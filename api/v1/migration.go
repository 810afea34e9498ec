package v1

import "time"

// Migration is the migration of a volume.
type Migration struct {
	Volume             string    `json:"volume"`
	To                 string    `json:"to"`
	Peer               string    `json:"peer,omitempty"`
	State              string    `json:"state"`
	SizeBytes          int64     `json:"size_bytes"`
	Rounds             int       `json:"rounds"`
	CopiedBytes        int64     `json:"copied_bytes"`
	RoundBytes         int64     `json:"round_bytes"`
	RoundCopiedBytes   int64     `json:"round_copied_bytes"`
	BytesPerSecond     int64     `json:"bytes_per_second"`
	RemainingSeconds   float64   `json:"remaining_seconds,omitempty"`
	Diverges           bool      `json:"diverges,omitempty"`
	Throttled          bool      `json:"throttled,omitempty"`
	Cuts               int       `json:"cuts"`
	CutSeconds         float64   `json:"cut_seconds,omitempty"`
	LongestHoldSeconds float64   `json:"longest_hold_seconds,omitempty"`
	Problem            string    `json:"problem,omitempty"`
	Began              time.Time `json:"began"`
	Ended              time.Time `json:"ended,omitzero"`
}

// MigrationRequest is the body of POST /v1/migrations.
type MigrationRequest struct {
	Volume                 string `json:"volume"`
	To                     string `json:"to"`
	Portal                 string `json:"portal,omitempty"`
	Login                  *Login `json:"login,omitempty"`
	Overwrite              bool   `json:"overwrite,omitempty"`
	BytesPerSecond         int64  `json:"bytes_per_second,omitempty"`
	ThrottleBytesPerSecond int64  `json:"throttle_bytes_per_second,omitempty"`
}

// FinishMigration is the body of POST /v1/migrations/{name}/finish.
type FinishMigration struct {
	KeepSource bool `json:"keep_source,omitempty"`
}
