package v1

// PeerLendRequest asks a peer of the same pool where a range of a hold lies, and to hold the
// segments for the store of the caller, durably.
type PeerLendRequest struct {
	// Taker is the store of the caller, Pool its cluster and pool, Proof that it has the same
	// key and dedup unit, all in hexadecimal.
	Taker string `json:"taker"`
	Pool  string `json:"pool"`
	Proof string `json:"proof"`
	// Epoch and Seq order the requests of one taker.
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// PeerClaim says what a store needs of the segments of a peer, from First to Last. With Check
// nothing changes; else the peer lets go of the others that were held until Epoch and Seq.
type PeerClaim struct {
	// Store is the one that is expected, Taker that of the caller, in hexadecimal.
	Store    string   `json:"store"`
	Taker    string   `json:"taker"`
	Epoch    uint64   `json:"epoch"`
	Seq      uint64   `json:"seq"`
	First    uint32   `json:"first"`
	Last     uint32   `json:"last"`
	Segments []uint32 `json:"segments"`
	Check    bool     `json:"check,omitempty"`
}

// PeerClaimed is the answer to a claim.
type PeerClaimed struct {
	// Missing are the segments of the claim that are not held.
	Missing []uint32 `json:"missing"`
}
