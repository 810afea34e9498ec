package admin

import (
	"context"
	"time"

	"odx/tokens"
)

// Offloader copies data of a store: by token, which moves no bytes, and as bytes, from
// and to other places. Where a method takes the name of a volume, FilePrefix and the
// name of a file denote the file. Offsets and lengths are bytes.
type Offloader interface {
	// CreateToken makes a token that represents a range of a volume as it is now,
	// durably.
	CreateToken(ctx context.Context, r TokenRequest) (MadeToken, error)
	// WriteToken makes a range of a volume equal to bytes of a token. It may do less
	// than was asked for; the caller continues from there.
	WriteToken(ctx context.Context, r TokenWrite) (TokenWritten, error)
	// ReadToken fills p with the token's bytes from off on. It returns how many
	// there were; fewer than len(p) only at the token's end.
	ReadToken(ctx context.Context, t *tokens.Token, p []byte, off int64) (int, error)
	// VerifyToken compares a range of a volume with a checksum token.
	VerifyToken(ctx context.Context, r TokenWrite) (TokenVerified, error)
	// Tokens lists live tokens, the oldest first.
	Tokens(ctx context.Context) ([]TokenInfo, error)
	// Token describes a live token.
	Token(ctx context.Context, id tokens.ID) (TokenInfo, error)
	// CopyStats counts what was copied and refused since the server started;
	// ErrNotRunning where no server has the store open.
	CopyStats(ctx context.Context) (CopyStats, error)
	// DeleteToken revokes a token.
	DeleteToken(ctx context.Context, id tokens.ID) error
	// RevokeToken is DeleteToken for a holder of the token. It is the only way to
	// revoke a hash token, which has no record.
	RevokeToken(ctx context.Context, t *tokens.Token) error

	// ReadVolume fills p from off.
	ReadVolume(ctx context.Context, name string, p []byte, off int64) error
	// WriteVolume writes p at off.
	WriteVolume(ctx context.Context, name string, p []byte, off int64) error
	// ZeroVolume makes a range read as zeros.
	ZeroVolume(ctx context.Context, name string, off, length int64) error
	// FlushVolume makes earlier writes durable.
	FlushVolume(ctx context.Context, name string) error
	// NextData returns the first range with data at or after off; length is 0 if only
	// zeros follow.
	NextData(ctx context.Context, name string, off int64) (start, length int64, err error)
}

// TokenRequest are the arguments of CreateToken.
type TokenRequest struct {
	// Peer is the server whose volume it is, and that makes the token; empty: this one.
	Peer   string
	Volume string
	Offset int64
	// Length 0 means up to the end of the volume.
	Length int64
	// Type is the ROD type; 0 is a point in time copy.
	Type tokens.RODType
	// InactivitySeconds is how long the token lives without being used; 0 is the
	// store's default.
	InactivitySeconds int64
	// Priority is the token's; tokens of lower priority are cancelled first.
	Priority int
	// Access is who may use the token: anyone, initiator or group:NAME; empty
	// leaves that to the configuration.
	Access tokens.Access
	// Providers are the names of the providers (data, hash, checksum) that make tokens
	// for the same bytes; or Skip leaves out the first so many of all providers.
	Providers []string
	Skip      int
}

// each reports whether the request selects providers.
func (r *TokenRequest) each() bool { return len(r.Providers) > 0 || r.Skip > 0 }

// MadeToken is the result of CreateToken.
type MadeToken struct {
	// Token is the token itself, 512 bytes, which is the right to use it.
	Token []byte
	// Length is how many bytes it represents.
	Length int64
	TokenInfo
	// Others are the tokens of other providers for the same bytes.
	Others []ProvidedToken
}

// ProvidedToken is a token and the name of its provider.
type ProvidedToken struct {
	Provider string
	Token    []byte
}

// TokenVerified is the result of VerifyToken.
type TokenVerified struct {
	Match bool
}

// TokenInfo describes a live token. It gives no right to use it.
type TokenInfo struct {
	ID         tokens.ID
	Type       tokens.RODType
	TypeName   string
	Bytes      int64
	Volume     string
	Initiator  string
	Created    time.Time
	LastUsed   time.Time
	Expires    *time.Time
	Inactivity int64
	Uses       uint64
	InUse      int
	Priority   int
}

// CopyStats are counters since the server started.
type CopyStats struct {
	// Commands are the third-party copy commands of initiators.
	Commands CopyCommands
	// Tokens are those of initiators and of this API.
	Tokens tokens.Stats
}

// TokenWrite are the arguments of WriteToken and VerifyToken.
type TokenWrite struct {
	Token []byte
	// TokenOffset is where in the token's bytes the write begins.
	TokenOffset int64
	Volume      string
	Offset      int64
	// Length is cut to what the token has; 0 means as much as the token and the
	// volume have.
	Length int64
}

// TokenWritten is the result of WriteToken.
type TokenWritten struct {
	// Bytes is how much was written, from the start of the range.
	Bytes int64
	// Remaining is how much of the length is left.
	Remaining int64
}
