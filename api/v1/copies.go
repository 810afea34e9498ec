package v1

import "time"

// CopyStats is the response of GET /v1/copies: counters since the server started.
type CopyStats struct {
	Commands CopyCommands `json:"commands"`
	Tokens   TokenStats   `json:"tokens"`
}

// CopyCommands counts the third-party copy commands of initiators.
type CopyCommands struct {
	Since               time.Time         `json:"since"`
	Populated           uint64            `json:"populated"`
	Written             uint64            `json:"written"`
	Extended            uint64            `json:"extended"`
	Partial             uint64            `json:"partial"`
	PopulatedBytes      uint64            `json:"populated_bytes"`
	PopulatedMovedBytes uint64            `json:"populated_moved_bytes"`
	WrittenBytes        uint64            `json:"written_bytes"`
	WrittenMovedBytes   uint64            `json:"written_moved_bytes"`
	ExtendedBytes       uint64            `json:"extended_bytes"`
	ExtendedMovedBytes  uint64            `json:"extended_moved_bytes"`
	Aborted             uint64            `json:"aborted"`
	Refused             uint64            `json:"refused"`
	RefusedBy           map[string]uint64 `json:"refused_by"`
	Recent              []CopyRefusal     `json:"recent_refusals"`
}

// CopyRefusal is a command that did nothing, and why.
type CopyRefusal struct {
	Time      time.Time `json:"time"`
	Command   string    `json:"command"`
	Initiator string    `json:"initiator"`
	Target    string    `json:"target"`
	Volume    string    `json:"volume"`
	Sense     string    `json:"sense"`
	Reason    string    `json:"reason"`
}

// TokenStats counts tokens, those of initiators and of the API.
type TokenStats struct {
	Live         int               `json:"live"`
	Tombstones   int               `json:"tombstones"`
	PinnedBytes  int64             `json:"pinned_bytes"`
	HeldBytes    int64             `json:"held_bytes"`
	MemoryBytes  int64             `json:"memory_bytes"`
	Created      uint64            `json:"created"`
	Uses         uint64            `json:"uses"`
	Expired      uint64            `json:"expired"`
	Cancelled    uint64            `json:"cancelled"`
	Revoked      uint64            `json:"revoked"`
	Deleted      uint64            `json:"deleted"`
	CancelledFor map[string]uint64 `json:"cancelled_for"`
	Refused      map[string]uint64 `json:"refused"`
}
