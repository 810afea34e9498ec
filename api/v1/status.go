package v1

import "time"

// Status is the response of GET /v1/status.
type Status struct {
	Portals        []string        `json:"portals"`
	MissingPortals []MissingPortal `json:"missing_portals,omitempty"`
	// PID is the number of the server's process.
	PID             int    `json:"pid"`
	HandoversFailed int    `json:"handovers_failed,omitempty"`
	HandoverError   string `json:"handover_error,omitempty"`
	// Standbys is how many processes wait to take over from the server.
	Standbys int `json:"standbys,omitempty"`
	// Pool is where the store is, if it is in a pool; Epoch is that of the server's claim.
	Pool       string      `json:"pool,omitempty"`
	Epoch      uint64      `json:"epoch,omitempty"`
	LUNs       []LUNStatus `json:"luns"`
	Sessions   []Session   `json:"sessions"`
	Damage     []Damaged   `json:"damage,omitempty"`
	MoreDamage int         `json:"more_damage,omitempty"`
	// Health is ok, degraded or failing; Conditions are what an administrator has to act
	// upon.
	Health     string      `json:"health"`
	Conditions []Condition `json:"conditions"`
	Vitals     Vitals      `json:"vitals"`
	// AuditProblem is why the audit file is not written; AuditLost is how many lines are
	// in the log only.
	AuditProblem string `json:"audit_problem,omitempty"`
	AuditLost    uint64 `json:"audit_lost,omitempty"`
}

// MissingPortal is a portal that could not be bound.
type MissingPortal struct {
	Address string `json:"address"`
	Problem string `json:"problem"`
}

// LUNStatus describes a LUN of the configuration.
type LUNStatus struct {
	Target    string   `json:"target"`
	Number    uint16   `json:"lun"`
	Medium    string   `json:"medium"`
	SizeBytes int64    `json:"size_bytes"`
	ReadOnly  bool     `json:"read_only"`
	URLs      []string `json:"urls"`
	Over      []string `json:"over"`
	Problem   string   `json:"problem,omitempty"`
}

// Session is an initiator that is logged in to a target, or to discovery.
type Session struct {
	Initiator string       `json:"initiator"`
	Alias     string       `json:"alias,omitempty"`
	ISID      string       `json:"isid"`
	TSIH      uint16       `json:"tsih"`
	Target    string       `json:"target,omitempty"`
	Addresses []string     `json:"addresses"`
	Since     time.Time    `json:"since"`
	Commands  int          `json:"commands"`
	LUNs      []SessionLUN `json:"luns"`
	// Portal is the address that the session was opened at, PortalGroup the tag of its
	// group; User is the name of CHAP.
	Portal      string `json:"portal,omitempty"`
	PortalGroup uint16 `json:"portal_group,omitempty"`
	User        string `json:"user,omitempty"`
	// Negotiated has the keys of RFC 7143 that both sides agreed on.
	Negotiated map[string]string `json:"negotiated,omitempty"`
	// Total is the traffic of the session in this process of the server.
	Total      Traffic `json:"total,omitzero"`
	LastMinute Traffic `json:"last_minute,omitzero"`
	// LoggingOut: the initiator was asked to log out, and the session ends soon.
	LoggingOut bool `json:"logging_out,omitempty"`
}

// SessionLUN is a LUN of a session.
type SessionLUN struct {
	Number   uint16   `json:"lun"`
	Medium   string   `json:"medium"`
	ReadOnly bool     `json:"read_only"`
	Over     []string `json:"over"`
}

// Condition is something that an administrator has to act upon. Severity is warning or
// critical.
type Condition struct {
	Name     string `json:"name"`
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
}

// Vitals are what the health of a server is judged by, in addition to what it serves. UsedBytes of
// the capacity are not free, whatever takes them; at WarnBytes initiators are warned.
type Vitals struct {
	StoreFailure      string   `json:"store_failure,omitempty"`
	CheckpointFailure string   `json:"checkpoint_failure,omitempty"`
	StoreFull         bool     `json:"store_full"`
	UsedBytes         int64    `json:"used_bytes"`
	FreeBytes         int64    `json:"free_bytes"`
	WarnBytes         int64    `json:"warn_bytes,omitempty"`
	Mirrors           []Mirror `json:"mirrors,omitempty"`
	// Replicas say what is wrong with replicas.
	Replicas []string `json:"replicas,omitempty"`
	// Policies are those of snapshots.
	Policies      []SnapshotPolicy `json:"snapshot_policies,omitempty"`
	RefusedCopies uint64           `json:"refused_copies"`
	LastRefusal   string           `json:"last_refusal,omitempty"`
	// StalledSeconds is for how long figures of the store have been waited for.
	StalledSeconds float64 `json:"stalled_seconds,omitempty"`
}

// Mirror is a mirror among the views: how many legs it has, and how many have the data.
type Mirror struct {
	View   string `json:"view"`
	Legs   int    `json:"legs"`
	InSync int    `json:"legs_in_sync"`
}
