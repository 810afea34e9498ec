package v1

import "time"

// ReplicaRequest is what one server of a pair asks of the other, at POST /v1/peer/replicas.
// IDs are in hexadecimal; those that do not apply are left out.
type ReplicaRequest struct {
	Op     string `json:"op"`
	Pair   string `json:"pair"`
	From   string `json:"from"`
	Name   string `json:"name,omitempty"`
	Object string `json:"object,omitempty"`
	Epoch  uint64 `json:"epoch"`
	Point  string `json:"point,omitempty"`
	Known  string `json:"known,omitempty"`
	Resume string `json:"resume,omitempty"`
	Full   bool   `json:"full,omitempty"`
	Units  bool   `json:"units,omitempty"`
}

// ReplicaAnswer is its response. With Refused, a word, the server has done nothing, for the
// reason in Message.
type ReplicaAnswer struct {
	Refused  string `json:"refused,omitempty"`
	Message  string `json:"message,omitempty"`
	Role     string `json:"role,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"`
	Identity string `json:"identity,omitempty"`
	Object   string `json:"object,omitempty"`
	Common   string `json:"common,omitempty"`
	Point    string `json:"point,omitempty"`
	// AgeMS is how long ago the point was taken, in milliseconds.
	AgeMS int64 `json:"age_ms,omitempty"`
	Final bool  `json:"final,omitempty"`
	// Units is what the logical unit has kept, for a yield with Units.
	Units []UnitRecord `json:"units,omitempty"`
	// Sources answers a list.
	Sources []ReplicaSource `json:"sources,omitempty"`
}

// ReplicaSource is a volume, or file:NAME, that the caller can keep a replica of. Pairs are the
// pairs that it has with the caller.
type ReplicaSource struct {
	Object string   `json:"object"`
	Pairs  []string `json:"pairs,omitempty"`
}

// Replica describes this server's side of a pair. Seconds are by its clock.
type Replica struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Role       string `json:"role"`
	Epoch      uint64 `json:"epoch"`
	Object     string `json:"object"`
	Peer       string `json:"peer"`
	PeerStore  string `json:"peer_store"`
	PeerObject string `json:"peer_object"`
	Paused     bool   `json:"paused"`
	Untold     bool   `json:"untold"`
	Orphan     bool   `json:"orphan"`
	Scheduled  bool   `json:"scheduled"`
	Point      string `json:"point,omitempty"`
	Pinned     int    `json:"pinned_snapshots"`
	Identity   string `json:"identity,omitempty"`
	// Succeeded is when the last round ended well; LagSeconds is how long ago the source had
	// the state that the replica has.
	Succeeded  time.Time       `json:"last_success,omitzero"`
	LagSeconds float64         `json:"lag_seconds,omitempty"`
	Running    bool            `json:"running"`
	Now        ReplicaProgress `json:"progress"`
	Last       *ReplicaRound   `json:"last_round,omitempty"`
	Rounds     uint64          `json:"rounds"`
	Failures   uint64          `json:"failures"`
	Fetched    int64           `json:"fetched_bytes"`
	Crossed    int64           `json:"network_bytes"`
	// Adopted is in the answer to a failover or failback with reservations.
	Adopted *ReplicaAdopted `json:"adopted,omitempty"`
}

// ReplicaAdopted says what a failover has taken along of the reservations and mode parameters of the
// source: registrations with target ports that the LUN here does not have were dropped; AgeSeconds is
// how long ago the source had the rest, 0 after a planned failover.
type ReplicaAdopted struct {
	DroppedRegistrations int     `json:"dropped_registrations"`
	AgeSeconds           float64 `json:"age_seconds"`
}

// ReplicaProgress is how far a round is: how much of the object was compared, how much of it
// differs, how much of that is here, and how much of that came over the network; and how much of the
// whole object is left to fetch, at most.
type ReplicaProgress struct {
	ComparedBytes int64 `json:"compared_bytes"`
	ObjectBytes   int64 `json:"object_bytes"`
	DifferBytes   int64 `json:"differ_bytes"`
	FetchedBytes  int64 `json:"fetched_bytes"`
	NetworkBytes  int64 `json:"network_bytes"`
	LeftBytes     int64 `json:"left_bytes"`
}

// ReplicaRound is a round that has ended.
type ReplicaRound struct {
	Began   time.Time       `json:"began"`
	Seconds float64         `json:"duration_seconds"`
	Bytes   ReplicaProgress `json:"bytes"`
	Error   string          `json:"error,omitempty"`
}

// ReplicaStart is the request of POST /v1/replicas.
type ReplicaStart struct {
	Peer   string `json:"peer"`
	Source string `json:"source"`
	Name   string `json:"name"`
	To     string `json:"to,omitempty"`
}

// ReplicaRun is the request of POST /v1/replicas/{name}/run.
type ReplicaRun struct {
	Full bool `json:"full,omitempty"`
}

// ReplicaFailover is the request of POST /v1/replicas/{name}/failover.
type ReplicaFailover struct {
	Force        bool `json:"force,omitempty"`
	Reservations bool `json:"reservations,omitempty"`
}

// ReplicaFailback is the request of POST /v1/replicas/{name}/failback.
type ReplicaFailback struct {
	Stay         bool `json:"stay,omitempty"`
	Full         bool `json:"full,omitempty"`
	Reservations bool `json:"reservations,omitempty"`
}

// ReplicaPause is the request of PATCH /v1/replicas/{name}.
type ReplicaPause struct {
	Paused bool `json:"paused"`
}
