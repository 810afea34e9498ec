package admin

import (
	"context"
	"time"

	"odx/backstore"
)

// Status is what a service serves, and to whom.
type Status struct {
	// Portals are the addresses where initiators are answered.
	Portals []string `json:"portals"`
	// MissingPortals do not answer: they could not be bound, and are tried again.
	MissingPortals []MissingPortal `json:"missing_portals,omitempty"`
	// LUNs are in the order of the configuration.
	LUNs []LUNStatus `json:"luns"`
	// Sessions are the initiators that are logged in, the oldest first.
	Sessions []Session `json:"sessions"`
	// Damage is what was found damaged of the store since it was opened, at most 100
	// things, and MoreDamage how many are not in it.
	Damage     []backstore.Damaged `json:"damage,omitempty"`
	MoreDamage int                 `json:"more_damage,omitempty"`
}

// LUNStatus describes a LUN of the configuration.
type LUNStatus struct {
	Target string `json:"target"`
	Number uint16 `json:"lun"`
	// Medium is what the LUN's blocks live on, for example "volume src".
	Medium    string   `json:"medium"`
	SizeBytes int64    `json:"size_bytes"`
	ReadOnly  bool     `json:"read_only"`
	URLs      []string `json:"urls"`
	// Over are the volumes, and the files with FilePrefix, that the blocks are in.
	Over []string `json:"over"`
	// Problem says why the LUN is not served.
	Problem string `json:"problem,omitempty"`
}

// Session is an initiator that is logged in to a target, or to discovery.
type Session struct {
	Initiator string `json:"initiator"`
	Alias     string `json:"alias,omitempty"`
	// ISID is in hexadecimal.
	ISID string `json:"isid"`
	TSIH uint16 `json:"tsih"`
	// Target is empty for a discovery session.
	Target string `json:"target,omitempty"`
	// Addresses are the initiator's, one for each connection.
	Addresses []string  `json:"addresses"`
	Since     time.Time `json:"since"`
	// Commands is how many are outstanding.
	Commands int          `json:"commands"`
	LUNs     []SessionLUN `json:"luns"`
}

// SessionLUN is a LUN as a session finds it.
type SessionLUN struct {
	Number   uint16 `json:"lun"`
	Medium   string `json:"medium"`
	ReadOnly bool   `json:"read_only"`
	// Over is that of the LUNStatus.
	Over []string `json:"over"`
}

// MissingPortal is a portal that does not answer.
type MissingPortal struct {
	Address string `json:"address"`
	Problem string `json:"problem"`
}

// CopyCommands counts the third-party copy commands of initiators since the server started.
type CopyCommands struct {
	Since time.Time `json:"since"`
	// Populated and Written count the commands that did all they were asked to,
	// Partial those that did some of it.
	Populated uint64 `json:"populated"`
	Written   uint64 `json:"written"`
	Extended  uint64 `json:"extended"`
	Partial   uint64 `json:"partial"`
	// PopulatedBytes were represented by tokens, WrittenBytes written with them;
	// ExtendedBytes were written by EXTENDED COPY. Of each, so many had to be moved:
	// read and written, because they are not in the store, or do not lie alike to its
	// blocks. The rest was mapped.
	PopulatedBytes      uint64 `json:"populated_bytes"`
	PopulatedMovedBytes uint64 `json:"populated_moved_bytes"`
	WrittenBytes        uint64 `json:"written_bytes"`
	WrittenMovedBytes   uint64 `json:"written_moved_bytes"`
	ExtendedBytes       uint64 `json:"extended_bytes"`
	ExtendedMovedBytes  uint64 `json:"extended_moved_bytes"`
	// Aborted counts the operations that were ended from outside.
	Aborted uint64 `json:"aborted"`
	// Refused counts the commands that did nothing and ended with CHECK CONDITION
	// or another bad status, RefusedBy the same by additional sense code
	// ("23h/07h") or status ("BUSY").
	Refused   uint64            `json:"refused"`
	RefusedBy map[string]uint64 `json:"refused_by"`
	// Recent are the last refusals, the latest first, at most 32.
	Recent []CopyRefusal `json:"recent_refusals"`
}

// CopyRefusal says of one command why it did nothing.
type CopyRefusal struct {
	Time      time.Time `json:"time"`
	Command   string    `json:"command"`
	Initiator string    `json:"initiator"`
	Target    string    `json:"target"`
	Volume    string    `json:"volume"`
	// Sense is the sense data in short, or the status.
	Sense  string `json:"sense"`
	Reason string `json:"reason"`
}

// Status implements Administrator.
func (s *Store) Status(context.Context) (Status, error) {
	if s.server == nil {
		return Status{}, ErrNotRunning
	}
	return s.server.Status(), nil
}
