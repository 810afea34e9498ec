package admin

import (
	"context"
	"time"

	"odx/backstore"
)

// Status describes what a server serves, and to which initiators.
type Status struct {
	// Portals are the addresses at which the service listens.
	Portals []string
	// MissingPortals could not be bound; the service retries them.
	MissingPortals []MissingPortal
	// PID is the number of the server's process.
	PID int
	// HandoversFailed counts the handovers after which this process went on;
	// HandoverError is why it did the last time.
	HandoversFailed int
	HandoverError   string
	// Standbys is how many processes of this machine wait to take over from this one.
	Standbys int
	// Pool is where the store is, and Epoch that of this process's claim; "" and 0 for a store
	// in a directory.
	Pool  string
	Epoch uint64
	// LUNs are in the order of the configuration.
	LUNs []LUNStatus
	// Sessions are the initiators that are logged in, the oldest first.
	Sessions []Session
	// AuditProblem is why the last change is not in the audit file, "" if it is, or if there
	// is none; AuditLost counts the changes that are in the log only.
	AuditProblem string
	AuditLost    uint64
	// Damage lists what was found damaged since the store was opened, at most 100
	// entries; MoreDamage counts the rest.
	Damage     []backstore.Damaged
	MoreDamage int
	Vitals     Vitals
}

// LUNStatus describes a LUN of the configuration.
type LUNStatus struct {
	Target string
	Number uint16
	// Medium is what the LUN's blocks are stored on, for example "volume src".
	Medium    string
	SizeBytes int64
	ReadOnly  bool
	URLs      []string
	// Over are the volumes, and the files with FilePrefix, that hold the blocks.
	Over []string
	// Problem is why the LUN is not served.
	Problem string
}

// Session is an initiator that is logged in to a target, or to discovery.
type Session struct {
	Initiator string
	Alias     string
	// ISID is in hexadecimal.
	ISID string
	TSIH uint16
	// Target is empty for a discovery session.
	Target string
	// Addresses are the initiator's, one for each connection.
	Addresses []string
	Since     time.Time
	// Commands is how many are outstanding.
	Commands int
	LUNs     []SessionLUN
	// Portal is the address of this server that the first connection came to, PortalGroup
	// the tag of its group. User is the CHAP name, "" without authentication.
	Portal      string
	PortalGroup uint16
	User        string
	// Negotiated are the keys that both sides agreed on (RFC 7143 13), with the digests of
	// the first connection.
	Negotiated map[string]string
	// Total is the traffic of the session in this process, LastMinute that of about the
	// last minute.
	Total, LastMinute SessionTraffic
	// LoggingOut: the initiator was asked to log out, and the session ends soon.
	LoggingOut bool
}

// SessionTraffic are the answered commands of a session. Bytes are those of their data.
type SessionTraffic struct {
	Commands, Errors, Bytes uint64
	// Mean and P99 are the mean time to the answer, and the one that 99 % of the commands
	// stayed below; 0 without commands.
	Mean, P99 time.Duration
}

// SessionLUN is a LUN of a session.
type SessionLUN struct {
	Number   uint16
	Medium   string
	ReadOnly bool
	// Over is that of the LUNStatus.
	Over []string
}

// MissingPortal is a portal that could not be bound.
type MissingPortal struct {
	Address string
	Problem string
}

// CopyCommands counts the third-party copy commands of initiators since the server started.
type CopyCommands struct {
	Since time.Time
	// Populated and Written count the commands that did all that was asked for, Partial
	// those that did a part of it.
	Populated uint64
	Written   uint64
	Extended  uint64
	Partial   uint64
	// PopulatedBytes were represented by tokens, WrittenBytes written with them;
	// ExtendedBytes were written by EXTENDED COPY. The MovedBytes of each were read and
	// written, because they are outside the store or differ in alignment; the rest was
	// mapped.
	PopulatedBytes      uint64
	PopulatedMovedBytes uint64
	WrittenBytes        uint64
	WrittenMovedBytes   uint64
	ExtendedBytes       uint64
	ExtendedMovedBytes  uint64
	// Aborted counts the operations that initiators aborted.
	Aborted uint64
	// Refused counts the commands that did nothing and ended with CHECK CONDITION
	// or another bad status, RefusedBy the same by additional sense code
	// ("23h/07h") or status ("BUSY").
	Refused   uint64
	RefusedBy map[string]uint64
	// Recent are the last refusals, the latest first, at most 32.
	Recent []CopyRefusal
}

// CopyRefusal is a command that did nothing, and why.
type CopyRefusal struct {
	Time      time.Time
	Command   string
	Initiator string
	Target    string
	Volume    string
	// Sense is the sense data in short, or the status.
	Sense  string
	Reason string
}

// Status implements Administrator.
func (s *Store) Status(context.Context) (Status, error) {
	if s.server == nil {
		return Status{}, ErrNotRunning
	}
	return s.server.Status(), nil
}
