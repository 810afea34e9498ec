package v1

import "time"

// TokenRequest is the request of POST /v1/tokens.
type TokenRequest struct {
	Peer              string   `json:"peer,omitempty"`
	Volume            string   `json:"volume"`
	Offset            int64    `json:"offset"`
	Length            int64    `json:"length,omitempty"`
	Type              uint32   `json:"rod_type,omitempty"`
	InactivitySeconds int64    `json:"inactivity_seconds,omitempty"`
	Priority          int      `json:"priority,omitempty"`
	Access            string   `json:"access,omitempty"`
	Providers         []string `json:"providers,omitempty"`
	Skip              int      `json:"skip,omitempty"`
}

// MadeToken is a new token: Token is its 512 bytes, in base64.
type MadeToken struct {
	Token  []byte `json:"token"`
	Length int64  `json:"length"`
	TokenInfo
	Others []ProvidedToken `json:"others,omitempty"`
}

// ProvidedToken is a token of another provider for the same bytes.
type ProvidedToken struct {
	Provider string `json:"provider"`
	Token    []byte `json:"token"`
}

// TokenInfo describes a live token. It gives no right to use it.
type TokenInfo struct {
	ID         string     `json:"id"`
	Type       uint32     `json:"rod_type"`
	TypeName   string     `json:"rod_type_name"`
	Bytes      int64      `json:"bytes"`
	Volume     string     `json:"volume,omitempty"`
	Initiator  string     `json:"initiator,omitempty"`
	Created    time.Time  `json:"created,omitzero"`
	LastUsed   time.Time  `json:"last_used,omitzero"`
	Expires    *time.Time `json:"expires,omitempty"`
	Inactivity int64      `json:"inactivity_seconds"`
	Uses       uint64     `json:"uses"`
	InUse      int        `json:"in_use"`
	Priority   int        `json:"priority"`
}

// TokenWrite is the request of POST /v1/tokens/write and of /v1/tokens/verify.
type TokenWrite struct {
	Token       []byte `json:"token"`
	TokenOffset int64  `json:"token_offset,omitempty"`
	Volume      string `json:"volume"`
	Offset      int64  `json:"offset"`
	Length      int64  `json:"length,omitempty"`
}

// TokenWritten is the result of a write with a token.
type TokenWritten struct {
	Bytes     int64 `json:"bytes"`
	Remaining int64 `json:"remaining"`
}

// TokenVerified is the result of a verification with a checksum token.
type TokenVerified struct {
	Match bool `json:"match"`
}

// TokenRead is the request of POST /v1/tokens/read.
type TokenRead struct {
	Token  []byte `json:"token"`
	Offset int64  `json:"offset,omitempty"`
	Length int64  `json:"length"`
}

// Token is the request of POST /v1/tokens/revoke.
type Token struct {
	Token []byte `json:"token"`
}
