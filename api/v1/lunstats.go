package v1

// LUNStats are the counters of a logical unit since the server started, for each kind of
// command: read, write, unmap, copy. A logical unit at several LUNs is an entry for each.
type LUNStats struct {
	Target     string             `json:"target"`
	Number     uint16             `json:"lun"`
	Medium     string             `json:"medium"`
	Kinds      map[string]Traffic `json:"kinds"`
	Initiators []InitiatorStats   `json:"initiators"`
}

// InitiatorStats are the counters of what one initiator sent to a logical unit.
type InitiatorStats struct {
	Initiator string             `json:"initiator"`
	Kinds     map[string]Traffic `json:"kinds"`
}

// Traffic counts commands of a kind. Latency is by bucket, with the shortest first.
type Traffic struct {
	Commands   uint64          `json:"commands"`
	Bytes      uint64          `json:"bytes"`
	Errors     uint64          `json:"errors"`
	Latency    []LatencyBucket `json:"latency,omitempty"`
	LastMinute Minute          `json:"last_minute"`
}

// LatencyBucket counts the commands that took at most UpToSeconds, and longer than those of
// the bucket before; the last one, which has 0 there, all longer ones.
type LatencyBucket struct {
	UpToSeconds float64 `json:"up_to_seconds"`
	Commands    uint64  `json:"commands"`
}

// Minute is what was done in the last minute. The seconds are the mean and the 99th
// percentile of the latency.
type Minute struct {
	Commands    uint64  `json:"commands"`
	Bytes       uint64  `json:"bytes"`
	Errors      uint64  `json:"errors"`
	MeanSeconds float64 `json:"mean_seconds"`
	P99Seconds  float64 `json:"p99_seconds"`
}
