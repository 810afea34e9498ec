package v1

import "time"

// Snapshot describes a snapshot of a volume, or of a file, which has file: before its name. It
// has no policy if none took it.
type Snapshot struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	Volume    string    `json:"volume,omitempty"`
	Policy    string    `json:"policy,omitempty"`
	Run       uint64    `json:"run,omitempty"`
	Time      time.Time `json:"time,omitzero"`
	SizeBytes int64     `json:"size_bytes"`
}

// SnapshotPolicy describes a policy of snapshots. One that is not in the configuration any more
// takes and deletes none.
type SnapshotPolicy struct {
	Policy      string    `json:"policy"`
	Configured  bool      `json:"configured"`
	Paused      bool      `json:"paused"`
	Running     bool      `json:"running"`
	Schedule    string    `json:"schedule,omitempty"`
	Next        time.Time `json:"next,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	Failures    int       `json:"failures"`
	LastError   string    `json:"last_error,omitempty"`
	Snapshots   int       `json:"snapshots"`
}

// SnapshotRun describes a run of a policy: what it took and deleted, and why it failed.
type SnapshotRun struct {
	Policy  string    `json:"policy"`
	Run     uint64    `json:"run"`
	Time    time.Time `json:"time"`
	Taken   []string  `json:"taken"`
	Deleted []string  `json:"deleted"`
	Problem string    `json:"problem,omitempty"`
}

// PrunedSnapshot is what becomes of a snapshot when its policy is pruned. Reasons are the keys
// of keep by which it stays; NeededBy is why it stays without one.
type PrunedSnapshot struct {
	Snapshot
	Reasons  []string `json:"reasons"`
	NeededBy string   `json:"needed_by,omitempty"`
	Deleted  bool     `json:"deleted"`
}
