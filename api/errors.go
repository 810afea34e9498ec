package api

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"golang.org/x/sys/unix"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/replica"
	"odx/replica/pair"
	"odx/stream"
	"odx/tokens"
	"odx/vhd"
	"odx/vhd/disk"
)

// errNoResource: no route has the method and path.
var errNoResource = errors.New("no such resource")

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

// kinds maps errors to the kind and status of a response: an error has those of the
// first row whose cause it wraps. Rows of tokens come before the general ones of the
// store. A Client maps the kind back to the cause.
var kinds = slices.Concat([]kind{
	{"no_resource", http.StatusNotFound, errNoResource},
	{"unauthorized", http.StatusUnauthorized, errUnauthorized},
	{"unauthorized", http.StatusUnauthorized, errCertificate},
	{"too_many_failures", http.StatusTooManyRequests, errFailures},
	{"forbidden", http.StatusForbidden, errForbidden},
	{"too_large", http.StatusRequestEntityTooLarge, errTooLarge},
	{"not_live", http.StatusConflict, errNotLive},
	{"rescue", http.StatusConflict, admin.ErrRescue},
	{"configuration_read_only", http.StatusConflict, conf.ErrReadOnly},
	{"configuration_changed", http.StatusConflict, conf.ErrChanged},
	{"changing", http.StatusServiceUnavailable, admin.ErrChanging},
	{"entry_exists", http.StatusConflict, conf.ErrExists},
	{"entry_not_found", http.StatusNotFound, conf.ErrNotFound},
	{"no_session", http.StatusNotFound, admin.ErrNoSession},
	{"no_migration", http.StatusNotFound, admin.ErrNoMigration},
	{"migrated", http.StatusConflict, admin.ErrMigrated},
	{"migrating", http.StatusConflict, admin.ErrMigrating},
	{"handing_over", http.StatusConflict, admin.ErrHandingOver},
	{"no_policy", http.StatusNotFound, admin.ErrNoPolicy},
	{"policy_busy", http.StatusConflict, admin.ErrPolicyBusy},
	{"logged_in", http.StatusConflict, admin.ErrLoggedIn},
	{"in_use", http.StatusConflict, admin.ErrInUse},
	{"busy", http.StatusConflict, vhd.ErrBusy},
	{"no_replica", http.StatusNotFound, pair.ErrNoPair},
	{"no_common_snapshot", http.StatusConflict, pair.ErrNoCommon},
	{"replica_role", http.StatusConflict, pair.ErrRole},
	{"replica_busy", http.StatusConflict, pair.ErrBusy},
	{"replica_paused", http.StatusConflict, pair.ErrPaused},
	{"protected", http.StatusConflict, backstore.ErrProtected},
	{"has_children", http.StatusConflict, vhd.ErrHasChildren},
	{"not_a_disk", http.StatusBadRequest, disk.ErrFormat},
	{"foreign_format", http.StatusBadRequest, vhd.ErrForeign},
}, ofTokens(), []kind{
	{"too_many_streams", http.StatusServiceUnavailable, errStreams},
	{"stream_format", http.StatusBadRequest, stream.ErrFormat},
	{"stream_version", http.StatusBadRequest, stream.ErrVersion},
	{"stream_truncated", http.StatusBadRequest, stream.ErrTruncated},
	{"stream_damaged", http.StatusBadRequest, stream.ErrDamaged},
	{"stream_encrypted", http.StatusBadRequest, stream.ErrSealed},
	{"stream_no_base", http.StatusConflict, replica.ErrNoBase},
	{"stream_diverged", http.StatusConflict, replica.ErrDiverged},
	{"stream_received", http.StatusConflict, replica.ErrReceived},
	{"stream_resume", http.StatusConflict, replica.ErrResume},
	{"stream_receiving", http.StatusConflict, replica.ErrReceiving},
	{"not_found", http.StatusNotFound, backstore.ErrNotFound},
	{"exists", http.StatusConflict, backstore.ErrExists},
	{"read_only", http.StatusConflict, blockdev.ErrReadOnly},
	{"invalid", http.StatusBadRequest, blockdev.ErrInvalid},
	{"no_space", http.StatusInsufficientStorage, blockdev.ErrNoSpace},
	{"no_space", http.StatusInsufficientStorage, unix.ENOSPC}, // of the configuration file
	{"range", http.StatusBadRequest, blockdev.ErrRange},
	{"closed", http.StatusServiceUnavailable, blockdev.ErrClosed},
	{"corrupt", http.StatusInternalServerError, blockdev.ErrCorrupt},
	{canceledKind, http.StatusServiceUnavailable, context.Canceled},
})

const (
	internalKind = "internal"
	canceledKind = "canceled"
	problemsKind = "invalid_configuration"
	restartKind  = "needs_restart"
)

// partialError is the error of a request that was done in part.
type partialError struct {
	error
	bytes int64
}

func (e *partialError) Unwrap() error { return e.error }

// failureOf returns the response for an error, and its HTTP status code.
func failureOf(err error) (v1.Failure, int) {
	f := v1.Failure{Kind: internalKind, Error: err.Error()}
	var partial *partialError
	if errors.As(err, &partial) {
		f.Bytes = partial.bytes
	}
	var restart *admin.NeedsRestartError
	if errors.As(err, &restart) {
		f.Kind, f.Changes = restartKind, ConfigChangesV1(restart.Changes)
		return f, http.StatusConflict
	}
	if problems := problemsOf(err); problems != nil {
		f.Kind, f.Problems = problemsKind, each(problemV1)(problems)
		return f, http.StatusBadRequest
	}
	for _, k := range kinds {
		if errors.Is(err, k.cause) {
			f.Kind = k.kind
			return f, k.status
		}
	}
	return f, http.StatusInternalServerError
}

// problemsOf returns the problems of a configuration that an error has, in its order.
func problemsOf(err error) conf.Problems {
	switch e := err.(type) {
	case conf.Problem:
		return conf.Problems{e}
	case conf.Problems:
		return e
	case interface{ Unwrap() error }:
		return problemsOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all conf.Problems
		for _, part := range e.Unwrap() {
			all = append(all, problemsOf(part)...)
		}
		return all
	}
	return nil
}

// errorOf returns the error of an error response.
func errorOf(f *v1.Failure) error {
	switch {
	case f.Kind == problemsKind && len(f.Problems) > 0:
		return conf.Problems(each(problemOf)(f.Problems))
	case f.Kind == restartKind:
		return &admin.NeedsRestartError{Changes: each(configChangeOf)(f.Changes)}
	}
	return &Error{f.Kind, f.Error, f.Bytes}
}

// Error is an error response of a server. It wraps the error of its kind.
type Error struct {
	Kind, Message string
	// Bytes were done before the error.
	Bytes int64
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the error of its kind, nil for a kind without one.
func (e *Error) Unwrap() error {
	for _, k := range kinds {
		if k.kind == e.Kind {
			return k.cause
		}
	}
	return nil
}
