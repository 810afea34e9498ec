package v1

// PeerHello says which store a server has.
type PeerHello struct {
	Version int    `json:"version"`
	Store   string `json:"store"` // hexadecimal
}

// PeerHoldRequest asks for a hold: of a token, or of a volume.
type PeerHoldRequest struct {
	// Store is the one that is expected, in hexadecimal.
	Store string `json:"store"`
	// Token is the token, and Initiator the requester of the caller that wants to use it;
	// empty for the caller itself. Hold is a hold of that token that the caller has.
	Token     []byte `json:"token,omitempty"`
	Initiator string `json:"initiator,omitempty"`
	Hold      string `json:"hold,omitempty"`
	// Volume is a volume, or file:NAME; Base an earlier state of it, or nothing.
	Volume string `json:"volume,omitempty"`
	Base   string `json:"base,omitempty"`
}

// PeerHold describes a hold.
type PeerHold struct {
	Hold      string `json:"hold"`
	Store     string `json:"store"`
	Length    int64  `json:"length"`
	DedupUnit int    `json:"dedup_unit"`
	// LeaseMS is how long the hold lives without a request that uses it, in milliseconds.
	LeaseMS int64 `json:"lease_ms"`
}

// PeerTokenRequest is about a token that the caller has.
type PeerTokenRequest struct {
	Store     string `json:"store"`
	Token     []byte `json:"token"`
	Initiator string `json:"initiator,omitempty"`
}

// PeerToken describes a token. It gives no right to use it.
type PeerToken struct {
	ID          string `json:"id"`
	Type        uint32 `json:"type"`
	Length      int64  `json:"length"`
	BlockLength int    `json:"block_length"`
	Initiator   string `json:"initiator,omitempty"`
	Target      string `json:"target,omitempty"`
	Volume      string `json:"volume,omitempty"`
	// CreatedMS, LastUsedMS and ExpiresMS are relative to now, in milliseconds: the clocks of
	// two servers need not agree. ExpiresMS is absent for one that is in use, or does not
	// expire.
	CreatedMS    int64  `json:"created_ms"`
	LastUsedMS   int64  `json:"last_used_ms"`
	ExpiresMS    *int64 `json:"expires_ms,omitempty"`
	InactivityMS int64  `json:"inactivity_ms"`
	Uses         uint64 `json:"uses"`
	InUse        int    `json:"in_use"`
	Priority     int    `json:"priority"`
	Access       string `json:"access,omitempty"`
	// Management is its management token, of 96 bytes, if those of one initiator are asked for.
	Management []byte `json:"management,omitempty"`
}

// PeerMakeRequest asks for a token of a range of a volume, or of file:NAME, in bytes; a Length of
// 0 is up to its end.
type PeerMakeRequest struct {
	Store        string `json:"store"`
	Volume       string `json:"volume"`
	Offset       int64  `json:"offset"`
	Length       int64  `json:"length"`
	Type         uint32 `json:"type"`
	InactivityMS int64  `json:"inactivity_ms"`
	Priority     int    `json:"priority"`
	Access       string `json:"access,omitempty"`
}

// PeerMade is a token that was made.
type PeerMade struct {
	Token []byte    `json:"token"`
	Info  PeerToken `json:"info"`
}

// PeerTokens lists live tokens.
type PeerTokens struct {
	Tokens []PeerToken `json:"tokens"`
	// More is how many there are beyond.
	More int `json:"more"`
}
