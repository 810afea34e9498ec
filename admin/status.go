package admin

import (
	"context"
	"time"

	"odx/backstore"
)

// Status is what a service serves, and to whom.
type Status struct {
	// Portals are the addresses where initiators are answered.
	Portals []string
	// MissingPortals do not answer: they could not be bound, and are tried again.
	MissingPortals []MissingPortal
	// LUNs are in the order of the configuration.
	LUNs []LUNStatus
	// Sessions are the initiators that are logged in, the oldest first.
	Sessions []Session
	// Damage is what was found damaged of the store since it was opened, at most 100
	// things, and MoreDamage how many are not in it.
	Damage     []backstore.Damaged
	MoreDamage int
}

// LUNStatus describes a LUN of the configuration.
type LUNStatus struct {
	Target string
	Number uint16
	// Medium is what the LUN's blocks live on, for example "volume src".
	Medium    string
	SizeBytes int64
	ReadOnly  bool
	URLs      []string
	// Over are the volumes, and the files with FilePrefix, that the blocks are in.
	Over []string
	// Problem says why the LUN is not served.
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
}

// SessionLUN is a LUN as a session finds it.
type SessionLUN struct {
	Number   uint16
	Medium   string
	ReadOnly bool
	// Over is that of the LUNStatus.
	Over []string
}

// MissingPortal is a portal that does not answer.
type MissingPortal struct {
	Address string
	Problem string
}

// CopyCommands counts the third-party copy commands of initiators since the server started.
type CopyCommands struct {
	Since time.Time
	// Populated and Written count the commands that did all they were asked to,
	// Partial those that did some of it.
	Populated uint64
	Written   uint64
	Extended  uint64
	Partial   uint64
	// PopulatedBytes were represented by tokens, WrittenBytes written with them;
	// ExtendedBytes were written by EXTENDED COPY. Of each, so many had to be moved:
	// read and written, because they are not in the store, or do not lie alike to its
	// blocks. The rest was mapped.
	PopulatedBytes      uint64
	PopulatedMovedBytes uint64
	WrittenBytes        uint64
	WrittenMovedBytes   uint64
	ExtendedBytes       uint64
	ExtendedMovedBytes  uint64
	// Aborted counts the operations that were ended from outside.
	Aborted uint64
	// Refused counts the commands that did nothing and ended with CHECK CONDITION
	// or another bad status, RefusedBy the same by additional sense code
	// ("23h/07h") or status ("BUSY").
	Refused   uint64
	RefusedBy map[string]uint64
	// Recent are the last refusals, the latest first, at most 32.
	Recent []CopyRefusal
}

// CopyRefusal says of one command why it did nothing.
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
