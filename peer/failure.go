package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/tokens"
)

// kind is the kind and the status of the errors that wrap a cause.
type kind struct {
	kind   string
	status int
	cause  error
}

// ofTokens returns the kinds of errors of tokens.
func ofTokens() (list []kind) {
	for _, k := range tokens.Kinds() {
		list = append(list, kind{k.Name, k.Status, k.Err})
	}
	return list
}

// kinds are the errors that cross the wire: an error has the kind of the first row whose
// cause it wraps.
var kinds = append(ofTokens(), []kind{
	{"hold_gone", http.StatusNotFound, ErrGone},
	{"hold_limit", http.StatusServiceUnavailable, ErrLimit},
	{"store", http.StatusConflict, ErrStore},
	{"no_adoption", http.StatusConflict, backstore.ErrNoAdoption},
	{"not_found", http.StatusNotFound, backstore.ErrNotFound},
	{"exists", http.StatusConflict, backstore.ErrExists},
	{"range", http.StatusBadRequest, blockdev.ErrRange},
	{"invalid", http.StatusBadRequest, blockdev.ErrInvalid},
	{"invalid", http.StatusBadRequest, ErrProtocol},
	{"closed", http.StatusServiceUnavailable, blockdev.ErrClosed},
	{"busy", http.StatusServiceUnavailable, blockdev.ErrBusy},
	{"timeout", http.StatusServiceUnavailable, context.DeadlineExceeded}, // that of an answer
	{"corrupt", http.StatusInternalServerError, blockdev.ErrCorrupt},
}...)

const internalKind = "internal"

// failureOf returns an error as a peer sends it. The kinds are those of the API.
func failureOf(err error) v1.Failure {
	for _, k := range kinds {
		if errors.Is(err, k.cause) {
			return v1.Failure{Kind: k.kind, Error: err.Error()}
		}
	}
	return v1.Failure{Kind: internalKind, Error: err.Error()}
}

// statusOf returns the status of HTTP for an error.
func statusOf(err error) int {
	for _, k := range kinds {
		if errors.Is(err, k.cause) {
			return k.status
		}
	}
	return http.StatusInternalServerError
}

// remoteError is an error that a peer has sent. It wraps the error of its kind.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }

// maxFailureText bounds what is shown of the text of a peer.
const maxFailureText = 500

// err returns the error that a failure is.
func errorOf(f v1.Failure) error {
	text := fmt.Sprintf("%.*q", maxFailureText, f.Error)
	for _, k := range kinds {
		if k.kind == f.Kind && k.cause != ErrProtocol {
			return &remoteError{fmt.Sprintf("%v: the peer says %s", k.cause, text), k.cause}
		}
	}
	return &remoteError{"the peer fails: it says " + text, ErrDown}
}

// refusals say what to do where a peer refuses this server itself, by the kind of the failure.
var refusals = map[string]string{
	"unauthorized":      wrongSecret,
	"too_many_failures": wrongSecret,
	"forbidden":         `set "role: peer" for it in api.secrets there`,
}

const wrongSecret = `the secret of the peer here has to be that of an entry of api.secrets there with "role: peer", or the certificate one that "accept" of an entry of peers there vouches for`

// readFailure decodes a failure.
func readFailure(p []byte) error {
	var f v1.Failure
	if err := json.Unmarshal(p, &f); err != nil {
		return fmt.Errorf("%w: a failure without its reason", ErrProtocol)
	}
	return errorOf(f)
}
