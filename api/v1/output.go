package v1

import "time"

// The types of this file are not of the API: commands print them with --json.

// StoreInfo is what odx store info prints; ExclusiveBytes is by name of the volume, or of
// the file after "file:".
type StoreInfo struct {
	Store
	ExclusiveBytes map[string]int64 `json:"exclusive_bytes,omitempty"`
}

// StandbyStatus is what odx status prints on a machine that waits for a store in a pool: Pool is
// where the store is, Epoch that of the last claim of it. Health is "standby". Owner and
// OwnerAddress are the name and the address of the machine that has the store, without them no
// machine has it.
type StandbyStatus struct {
	Health       string `json:"health"`
	Pool         string `json:"pool"`
	Epoch        uint64 `json:"epoch"`
	Owner        string `json:"owner,omitempty"`
	OwnerAddress string `json:"owner_address,omitempty"`
}

// Upgraded is what odx store upgrade prints: From and To are formats, Rows rows of
// metadata.
type Upgraded struct {
	From int `json:"from"`
	To   int `json:"to"`
	Rows int `json:"rows"`
}

// Repaired is what odx store repair prints. With DataRead, all data was read and what
// is damaged of it is in LostBytes and Lost.
type Repaired struct {
	Volumes    int            `json:"volumes"`
	Snapshots  int            `json:"snapshots"`
	Records    int            `json:"records"`
	LostBytes  int64          `json:"lost_bytes"`
	DataRead   bool           `json:"data_read"`
	Lost       []Lost         `json:"lost"`
	More       int            `json:"more_lost,omitempty"`
	Unused     []UnusedChange `json:"unused"`
	MoreUnused int            `json:"more_unused,omitempty"`
}

// Lost is an object that a repair could not save.
type Lost struct {
	What   string `json:"what"`
	Offset int64  `json:"offset,omitempty"`
	Length int64  `json:"length,omitempty"`
	Reason string `json:"reason"`
}

// UnusedChange is what records of the journal change that are not used.
type UnusedChange struct {
	FirstLSN uint64 `json:"first_lsn"`
	LastLSN  uint64 `json:"last_lsn"`
	Records  int    `json:"records"`
	Change   Change `json:"change"`
}

// Change is a change of a journal record.
type Change struct {
	Kind   string `json:"kind"`
	What   string `json:"what"`
	Offset int64  `json:"offset,omitempty"`
	Length int64  `json:"length,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// DumpItem is a line of odx store dump. What Value has depends on the format of the
// store.
type DumpItem struct {
	Part  string `json:"part"`
	Key   string `json:"key,omitempty"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// CopyResult is what odx copy and its relatives print.
type CopyResult struct {
	Bytes      int64         `json:"bytes"`
	TokenBytes int64         `json:"token_bytes"`
	MovedBytes int64         `json:"moved_bytes"`
	Mapped     bool          `json:"mapped"`
	Reason     string        `json:"reason,omitempty"`
	Duration   time.Duration `json:"duration_ns"`
}

// Finding is one check of odx doctor.
type Finding struct {
	LUN    string `json:"lun,omitempty"`
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"`
}
