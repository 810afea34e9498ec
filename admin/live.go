package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"odx/conf"
)

// Live changes the configuration of a running server, and describes and ends sessions.
//
// A change of the configuration is made as a whole or not at all. Errors are
// conf.Problems (the configuration has mistakes, or cannot be applied as it is: a portal
// that cannot be bound, a secret that cannot be read), *NeedsRestartError, ErrChanging,
// conf.ErrReadOnly and conf.ErrChanged (the file cannot be replaced, or is another one by
// now), ErrNotRunning where no server has the store open. After an error the server and the
// file are what they were before.
type Live interface {
	// Reload reads the configuration file again and applies what has changed. Secrets in
	// files are read again, whether the configuration has changed or not.
	Reload(ctx context.Context) (Reloaded, error)
	// PutConfig makes text the configuration file, and applies it. basedOn is the Digest of
	// the file that text was made from: conf.ErrChanged if it is another one by now. If it
	// is empty, text replaces whatever is there.
	PutConfig(ctx context.Context, text []byte, basedOn string) (Reloaded, error)
	// CompareConfig returns what PutConfig would change, with the changes that need a
	// restart, and changes nothing.
	CompareConfig(ctx context.Context, text []byte) ([]conf.Change, error)
	// EditConfig is PutConfig with edits of the file as it is now.
	EditConfig(ctx context.Context, edits ...conf.Edit) (Reloaded, error)
	// Config returns the configuration that the server has, with all defaults, as YAML.
	// Secrets are masked.
	Config(ctx context.Context) ([]byte, error)
	// ConfigFile returns the text of the configuration file that the server has read last,
	// with its comments and its secrets.
	ConfigFile(ctx context.Context) ([]byte, error)

	// Sessions describes the sessions, the oldest first.
	Sessions(ctx context.Context) ([]Session, error)
	// EndSession asks the initiator of a session to log out, and ends the session then.
	// ErrNoSession: there is none.
	EndSession(ctx context.Context, tsih uint16) error
	// LUNStats returns the counters of the LUNs, in the order of the configuration.
	LUNStats(ctx context.Context) ([]LUNStats, error)

	Migrator
}

// Digest identifies the text of a configuration file: its SHA-256, in hexadecimal.
func Digest(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }

var (
	// ErrChanging: the server hands over to another process, or stops, and its
	// configuration does not change in the meantime.
	ErrChanging = errors.New("configuration not changed: the server is being handed over, or stops; try again")
	// ErrRescue: a rescue serves what its configuration was at the start.
	ErrRescue = errors.New("a rescue serves what its configuration was at the start; stop it to apply another one")
	// ErrNoSession: no session has that number.
	ErrNoSession = errors.New("no such session")
)

// NeedsRestartError lists the changes because of which a configuration was not applied:
// they take effect at a start only.
type NeedsRestartError struct{ Changes []conf.Change }

func (e *NeedsRestartError) Error() string {
	var b strings.Builder
	b.WriteString("configuration not changed, since a part of it needs a restart of odx serve")
	for _, c := range e.Changes {
		fmt.Fprintf(&b, "\n%s: %s", c.Key, c.Why)
	}
	return b.String()
}

// Reloaded describes an applied change of the configuration.
type Reloaded struct {
	// Changes are the differences of both configurations. A secret that was read again and
	// is another one is a change.
	Changes []conf.Change
	// Warnings are what is not served, and what is unwise.
	Warnings []string
	// TargetsCame and TargetsLeft are the targets that are there now and were not, and the
	// reverse.
	TargetsCame, TargetsLeft []string
	// Came and Left are the LUNs that are served now and were not, and the reverse; one
	// that has another medium is in both.
	Came, Left []LUNName
	// LogoutsRequested counts the sessions whose right or target is gone: their initiators
	// were asked to log out.
	LogoutsRequested int
	// Aborted counts the LUNs that left with commands that did not end by themselves in
	// time.
	Aborted int
	// Took is how long it took, LockedFor how long at most a lock was held that every
	// command or login needs. A lock of each target, which logins and reports of unit
	// attentions need, is held longer: some tens of microseconds for each session.
	Took, LockedFor time.Duration
}

// LUNName names a LUN of the configuration.
type LUNName struct {
	Target string
	Number uint16
	// Medium is what the LUN's blocks are stored on, for example "volume src".
	Medium string
}

// LUNStats are the counters of a LUN since the server began to serve it.
type LUNStats struct {
	LUNName
	Since time.Time
	// Total is of all initiators.
	Total Counters
	// Minute is what Total has grown by in the last minute.
	Minute Counters
	// Initiators are those that are logged in, by their names.
	Initiators []InitiatorStats
}

// InitiatorStats are the counters of a LUN for one initiator.
type InitiatorStats struct {
	Initiator string
	Total     Counters
}

// Counters count commands by kind. Commands that touch no data are in none.
type Counters struct{ Read, Write, Unmap, Copy KindCounters }

// KindCounters count the commands of one kind.
type KindCounters struct {
	Commands, Bytes, Errors uint64
	// Mean and P99 are the mean duration, and the one that 99 % of the commands did not
	// exceed, at most twice too much; 0 without commands.
	Mean, P99 time.Duration
	// Latency counts the commands by duration: those that took no longer than UpTo, and
	// longer than that of the entry before. Entries without commands are left out.
	Latency []LatencyCount
}

// LatencyCount is one entry of a histogram; UpTo is 0 in the one without a bound, the last.
type LatencyCount struct {
	UpTo  time.Duration
	Count uint64
}
