package main

import (
	"errors"
	"fmt"
	"net"

	"odx/admin"
	"odx/api/transfer"
)

// exitStatus ends a command that has printed everything with a status.
type exitStatus int

// The exit statuses of all commands, besides 0.
const (
	statusFailed       exitStatus = 1
	statusUsage        exitStatus = 2
	statusDamage       exitStatus = 3
	statusNotOffloaded exitStatus = 4
	statusUnreachable  exitStatus = 5
	statusChanges      exitStatus = 6 // of odx config diff
	statusRestart      exitStatus = 7 // of odx config diff
	statusStandby      exitStatus = 8 // of odx status
)

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// exitStatuses says what the exit statuses mean, for the manual.
var exitStatuses = []struct {
	status  exitStatus
	meaning string
}{
	{0, "Done."},
	{statusFailed, "Failed; standard error says why. Of status and cluster status: the server or the pool is degraded or failing."},
	{statusUsage, "The command line is wrong."},
	{statusDamage, "Damage or an inconsistency was found (status, store check, store scrub, vhd check)."},
	{statusNotOffloaded, "Not offloaded: of doctor, and of copy with --require-offload. A copy that succeeds without the flag exits with 0."},
	{statusUnreachable, "The server is not reachable, or none serves the store and the command needs one."},
	{statusChanges, "Of config diff: a reload applies the changes."},
	{statusRestart, "Of config diff: a change needs a restart, so that a reload refuses all."},
	{statusStandby, "Of status: this machine waits for the store in a pool, which another one has."},
}

// statusError is an error with an exit status of its own.
type statusError struct {
	error
	status exitStatus
}

func (e *statusError) Unwrap() error { return e.error }

// damagef returns an error for damage that was found, formatted as by fmt.Errorf.
func damagef(format string, args ...any) error {
	return &statusError{fmt.Errorf(format, args...), statusDamage}
}

// noServerError is the error of a command that needs a server.
type noServerError struct{ dir string }

func (e *noServerError) Error() string { return "no odx serves the store in " + e.dir }

func (e *noServerError) Is(target error) bool { return target == admin.ErrNotRunning }

// statusOf returns the exit status for an error.
func statusOf(err error) exitStatus {
	var usage *usageError
	var own *statusError
	var network *net.OpError
	switch {
	case errors.As(err, &usage):
		return statusUsage
	case errors.As(err, &own):
		return own.status
	case errors.Is(err, transfer.ErrNotOffloaded):
		return statusNotOffloaded
	case errors.Is(err, admin.ErrNotRunning), errors.As(err, &network) && network.Op == "dial":
		return statusUnreachable
	}
	return statusFailed
}
