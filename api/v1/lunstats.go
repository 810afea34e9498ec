package v1

import "time"

// LUNStats are the counters of a LUN since the server began to serve it, and what was
// added in the last minute; and those of each initiator that is logged in.
type LUNStats struct {
	LUNName
	Since      time.Time        `json:"since"`
	Total      Counters         `json:"total"`
	LastMinute Counters         `json:"last_minute"`
	Initiators []InitiatorStats `json:"initiators"`
}

// InitiatorStats are the counters of a LUN for one initiator.
type InitiatorStats struct {
	Initiator string   `json:"initiator"`
	Total     Counters `json:"total"`
}

// Counters count commands by kind. Commands that touch no data are in none.
type Counters struct {
	Read  KindCounters `json:"read"`
	Write KindCounters `json:"write"`
	Unmap KindCounters `json:"unmap"`
	Copy  KindCounters `json:"copy"`
}

// KindCounters count the commands of one kind. Latency is a histogram, the shortest
// first, without its empty entries.
type KindCounters struct {
	Traffic
	Latency []LatencyCount `json:"latency,omitempty"`
}

// Traffic counts commands, and their bytes. The seconds are the mean duration and the one
// that 99 % of the commands did not exceed; 0 without commands.
type Traffic struct {
	Commands    uint64  `json:"commands"`
	Bytes       uint64  `json:"bytes"`
	Errors      uint64  `json:"errors"`
	MeanSeconds float64 `json:"mean_seconds"`
	P99Seconds  float64 `json:"p99_seconds"`
}

// LatencyCount counts the commands that took at most UpToSeconds, and longer than those of
// the entry before; 0 is no bound.
type LatencyCount struct {
	UpToSeconds float64 `json:"up_to_seconds"`
	Commands    uint64  `json:"commands"`
}
