package tokens

import (
	"errors"
	"net/http"
)

// Why a token is refused. SPC-4 r37 5.17.6.5.2.3 has one additional sense code
// for each.
var (
	// ErrInvalidLength: the ROD TOKEN LENGTH field is not that of a ROD token.
	ErrInvalidLength = errors.New("token has an invalid length")
	// ErrCorrupt: the token was damaged or forged.
	ErrCorrupt = errors.New("token is corrupt")
	// ErrUnsupportedType: the ROD type is not one that can be made or used here.
	ErrUnsupportedType = errors.New("ROD type is not supported")
	// ErrRemote: the token was made by another copy manager.
	ErrRemote = errors.New("token was made elsewhere")
	// ErrExpired: the inactivity timeout passed.
	ErrExpired = errors.New("token has expired")
	// ErrCancelled: the copy manager ended the token.
	ErrCancelled = errors.New("token was cancelled")
	// ErrRevoked: an administrator ended the token.
	ErrRevoked = errors.New("token was revoked")
	// ErrDeleted: a user of the token deleted it.
	ErrDeleted = errors.New("token was deleted")
	// ErrUnknown: the token is genuine, but the manager has no record of it.
	ErrUnknown = errors.New("token is unknown")
)

// Why an offload operation is refused for another reason than its token.
var (
	// ErrNoResources: the number of live tokens, or the memory for them, is at its
	// limit, and no other token can be cancelled.
	ErrNoResources = errors.New("too many live tokens")
	// ErrAccess: the token is not for this requester.
	ErrAccess = errors.New("access denied")
	// ErrUnmapped: by policy, volumes outside the store are not copied by token.
	ErrUnmapped = errors.New("volume is outside the store")
	// ErrTooLong: more bytes than one token may stand for.
	ErrTooLong = errors.New("more bytes than one token may represent")
	// ErrTimeout: the inactivity timeout is longer than the maximum.
	ErrTimeout = errors.New("inactivity timeout is longer than allowed")
	// ErrOffset: the offset is at or past the end of the token's bytes.
	ErrOffset = errors.New("offset is past the end of the token")
	// ErrClosed: the manager was closed.
	ErrClosed = errors.New("token manager is closed")
)

// Kind is how an error of this package is named in JSON, by the API and between servers, and
// the status of HTTP that it has there.
type Kind struct {
	Name   string
	Status int
	Err    error
}

// Kinds returns the kinds of all errors that refuse a token or what is asked of it.
func Kinds() []Kind {
	return []Kind{
		{"token_length", http.StatusBadRequest, ErrInvalidLength},
		{"token_corrupt", http.StatusBadRequest, ErrCorrupt},
		{"token_type", http.StatusBadRequest, ErrUnsupportedType},
		{"token_remote", http.StatusBadRequest, ErrRemote},
		{"token_expired", http.StatusGone, ErrExpired},
		{"token_cancelled", http.StatusGone, ErrCancelled},
		{"token_revoked", http.StatusGone, ErrRevoked},
		{"token_deleted", http.StatusGone, ErrDeleted},
		{"token_unknown", http.StatusNotFound, ErrUnknown},
		{"token_access", http.StatusForbidden, ErrAccess},
		{"token_unmapped", http.StatusForbidden, ErrUnmapped},
		{"token_limit", http.StatusServiceUnavailable, ErrNoResources},
		{"token_too_long", http.StatusBadRequest, ErrTooLong},
		{"token_timeout", http.StatusBadRequest, ErrTimeout},
		{"token_offset", http.StatusBadRequest, ErrOffset},
	}
}
