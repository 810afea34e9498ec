package admin

import (
	"context"
	"time"

	"odx/tokens"
)

// Offloader is what can be copied of a store: by token, which moves no bytes,
// and as bytes, for what comes from elsewhere or goes there. Where a method takes
// the name of a volume, FilePrefix and the name of a file stand for the file.
// Offsets and lengths are bytes.
type Offloader interface {
	// CreateToken makes a token that stands for a range of a volume as it is
	// now, durably.
	CreateToken(ctx context.Context, r TokenRequest) (MadeToken, error)
	// WriteToken makes a range of a volume equal to bytes of a token. It may do
	// less than it was asked: the caller goes on from there.
	WriteToken(ctx context.Context, r TokenWrite) (TokenWritten, error)
	// ReadToken fills p with the token's bytes from off on. It returns how many
	// there were; fewer than len(p) only at the token's end.
	ReadToken(ctx context.Context, t *tokens.Token, p []byte, off int64) (int, error)
	// VerifyToken compares a range of a volume with what a checksum token proves.
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
	// RevokeToken is DeleteToken for who has the token: those without a record,
	// hash tokens, have no other name.
	RevokeToken(ctx context.Context, t *tokens.Token) error

	// ReadVolume fills p from off.
	ReadVolume(ctx context.Context, name string, p []byte, off int64) error
	// WriteVolume writes p at off.
	WriteVolume(ctx context.Context, name string, p []byte, off int64) error
	// ZeroVolume makes a range read as zeros.
	ZeroVolume(ctx context.Context, name string, off, length int64) error
	// FlushVolume makes durable what was written before.
	FlushVolume(ctx context.Context, name string) error
	// NextData returns the first range at or after off that has something else
	// than zeros; length is 0 when there is none.
	NextData(ctx context.Context, name string, off int64) (start, length int64, err error)
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Volume string
	Offset int64
	// Length 0 means up to the end of the volume.
	Length int64
	// Type is the ROD type; 0 is a copy of the point in time.
	Type tokens.RODType
	// InactivitySeconds is how long the token lives without being used; 0 is the
	// store's default.
	InactivitySeconds int64
	// Priority is higher for a token that is to go later when room is needed.
	Priority int
	// Access is who may use the token: anyone, initiator or group:NAME; empty
	// leaves that to the configuration.
	Access tokens.Access
	// Providers asks for tokens of several kinds for the same bytes, by name: data,
	// hash, checksum; or Skip for those of all providers but the first so many.
	Providers []string
	Skip      int
}

// each reports whether more is asked for than the one token of a usual request.
func (r *TokenRequest) each() bool { return len(r.Providers) > 0 || r.Skip > 0 }

// MadeToken is a token that was made.
type MadeToken struct {
	// Token is what proves the right to use it: 512 bytes, in JSON as base64.
	Token []byte
	// Length is how many bytes it stands for.
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

// TokenVerified says whether bytes are those that a checksum token was made of.
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
	// Tokens are those of all makers, initiators and this API.
	Tokens tokens.Stats
}

// TokenWrite asks for bytes of a token.
type TokenWrite struct {
	Token []byte
	// TokenOffset is where in the token's bytes to begin.
	TokenOffset int64
	Volume      string
	Offset      int64
	// Length is cut to what the token has; 0 means as much as the token and the
	// volume have.
	Length int64
}

// TokenWritten says what a write with a token did.
type TokenWritten struct {
	// Bytes is how much was done, from the beginning of the range on.
	Bytes int64
	// Remaining is how much is left of what was asked.
	Remaining int64
}
