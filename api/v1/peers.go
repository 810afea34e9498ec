package v1

import "time"

// Peers are the other servers of a server, and what they have of it.
type Peers struct {
	Peers []Peer     `json:"peers"`
	Holds []HoldInfo `json:"holds"`
}

// Peer is another server.
type Peer struct {
	Name         string     `json:"name"`
	Store        string     `json:"store"`
	Addresses    []string   `json:"addresses"`
	Up           bool       `json:"up"`
	Problem      string     `json:"problem,omitempty"`
	Heard        *time.Time `json:"heard,omitempty"`
	Requests     int64      `json:"requests"`
	Failures     int64      `json:"failures"`
	FetchedBytes int64      `json:"fetched_bytes"`
	MappedBytes  int64      `json:"mapped_bytes"`
	WireBytes    int64      `json:"wire_bytes"`
}

// HoldInfo is data that a peer has asked to be kept for a while.
type HoldInfo struct {
	Peer      string    `json:"peer"`
	Of        string    `json:"of"`
	Bytes     int64     `json:"bytes"`
	ReadBytes int64     `json:"read_bytes"`
	Since     time.Time `json:"since"`
	LeaseMS   int64     `json:"lease_ms"`
}

// TokensOfPeer are the live tokens that a peer has made.
type TokensOfPeer struct {
	Peer    string      `json:"peer"`
	Problem string      `json:"problem,omitempty"`
	Tokens  []TokenInfo `json:"tokens"`
	More    int         `json:"more"`
}

// FileTokenRequest asks for a token of a file.
type FileTokenRequest struct {
	Offset            int64  `json:"offset,omitempty"`
	Length            int64  `json:"length,omitempty"`
	Type              uint32 `json:"rod_type,omitempty"`
	InactivitySeconds int64  `json:"inactivity_seconds,omitempty"`
	Priority          int    `json:"priority,omitempty"`
	Access            string `json:"access,omitempty"`
}
