// Package handover is the state of live iSCSI connections that one process passes to
// another: plain types, and their encoding. It is wire between versions of odx.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Version is the version of State that this program writes, and the only one that it
// reads.
const Version = 2

// Bounds of a State. Lengths are in bytes.
const (
	// MaxEncoded bounds an encoded State.
	MaxEncoded = 224 << 20
	// MaxSessions bounds the sessions; there are no more TSIHs.
	MaxSessions = 1<<16 - 1
	// MaxConnections bounds the connections of all sessions.
	MaxConnections = 1 << 17
	// MaxUnread bounds the unread bytes of all connections.
	MaxUnread = 64 << 20
	// MaxName bounds the names of a session.
	MaxName = 1024
	// MaxWindow bounds the commands between ExpCmdSN and MaxCmdSN.
	MaxWindow = 1<<16 + 1
	// MaxUnits bounds the logical units of a nexus.
	MaxUnits = 1 << 14
	// MaxAttentions bounds the unit attentions of each.
	MaxAttentions = 64
	// MaxCopies bounds the copy operations of a State.
	MaxCopies = 1 << 16
	// MaxRunning bounds the copy operations of a State that go on.
	MaxRunning = 255
	// MaxParameters bounds the parameter list of each, MaxResidual its residual data and
	// MaxHeld its held data.
	MaxParameters = 2 + 1<<16 - 1
	MaxResidual   = 1 << 16
	MaxHeld       = 1 << 16
	// maxSenseDepth bounds how often sense data may forward sense data.
	maxSenseDepth = 4
)

// State is the sessions of a server.
type State struct {
	Version  int       `json:"version"`
	Sessions []Session `json:"sessions"`
}

// Session is a normal session (RFC 7143 4.4.3.1) with its I_T nexus. No task of it is
// outstanding.
type Session struct {
	Initiator string `json:"initiator"`
	Alias     string `json:"alias,omitempty"`
	ISID      []byte `json:"isid"`
	TSIH      uint16 `json:"tsih"`
	Target    string `json:"target"`
	// PortalGroup is the tag of the target portal group.
	PortalGroup uint16 `json:"portal_group"`
	// User is the CHAP name that the initiator has proven, or "".
	User     string `json:"user,omitempty"`
	ExpCmdSN uint32 `json:"exp_cmd_sn"`
	MaxCmdSN uint32 `json:"max_cmd_sn"`
	// Aborted are the CmdSNs after ExpCmdSN that count as received, because their
	// commands were aborted before they arrived (RFC 7143 11.5.1).
	Aborted []uint32  `json:"aborted,omitempty"`
	Keys    Keys      `json:"keys"`
	Since   time.Time `json:"since"`
	// Connections are in the order of their logins. There is at least one.
	Connections []Connection `json:"connections"`
	Nexus       Nexus        `json:"nexus"`
}

// Keys are the negotiated keys of a session (RFC 7143 13). Lengths are in bytes.
type Keys struct {
	MaxConnections     uint32 `json:"max_connections"`
	InitialR2T         bool   `json:"initial_r2t"`
	ImmediateData      bool   `json:"immediate_data"`
	MaxBurstLength     uint32 `json:"max_burst_length"`
	FirstBurstLength   uint32 `json:"first_burst_length"`
	MaxOutstandingR2T  uint32 `json:"max_outstanding_r2t"`
	DefaultTime2Wait   uint32 `json:"default_time2wait"`
	DefaultTime2Retain uint32 `json:"default_time2retain"`
	ErrorRecoveryLevel uint32 `json:"error_recovery_level"`
	ProtocolLevel      uint32 `json:"protocol_level"`
}

// Connection is a connection in full feature phase, of which everything was sent.
type Connection struct {
	// Socket is the index of the connection's socket among those that come with the
	// State.
	Socket    int    `json:"socket"`
	CID       uint16 `json:"cid"`
	StatSN    uint32 `json:"stat_sn"`     // of the next response
	ExpStatSN uint32 `json:"exp_stat_sn"` // the last that was received
	// TransferTag is the last Target Transfer Tag.
	TransferTag  uint32 `json:"transfer_tag"`
	HeaderDigest bool   `json:"header_digest"`
	DataDigest   bool   `json:"data_digest"`
	// InitiatorSegment and TargetSegment are the MaxRecvDataSegmentLength of both sides.
	InitiatorSegment uint32 `json:"initiator_segment"`
	TargetSegment    uint32 `json:"target_segment"`
	// Unread are the bytes that were received and not processed: they precede what the
	// socket has. They begin with a PDU, and may end within one.
	Unread []byte `json:"unread,omitempty"`
}

// Nexus is the state of an I_T nexus.
type Nexus struct {
	// Doubted: the connections of the session were not authenticated alike.
	Doubted bool   `json:"doubted,omitempty"`
	Units   []Unit `json:"units"`
}

// Unit is the state of a logical unit for an I_T nexus.
type Unit struct {
	// LUN is where the nexus finds the logical unit, ID the identity of that.
	LUN uint16 `json:"lun"`
	ID  []byte `json:"id"`
	// Attentions are the queued unit attentions, as additional sense code and qualifier.
	Attentions []uint16 `json:"attentions,omitempty"`
	// Deferred is the deferred error that was not reported, or nil.
	Deferred *Sense `json:"deferred,omitempty"`
	// Reserved: the nexus holds the logical unit by RESERVE(6) or RESERVE(10).
	Reserved bool `json:"reserved,omitempty"`
	// Copies are the reports that the copy manager holds, in the order in which the
	// operations ended.
	Copies []Copy `json:"copies,omitempty"`
	// Running are the copy operations in the background that go on.
	Running []RunningCopy `json:"running,omitempty"`
}

// Copy is the report of a copy operation that has ended (SPC-4 r37 5.17.4).
type Copy struct {
	ListID        uint32    `json:"list_id"`
	ServiceAction byte      `json:"service_action"`
	Status        byte      `json:"status"`     // COPY OPERATION STATUS
	Completion    byte      `json:"completion"` // EXTENDED COPY COMPLETION STATUS
	Sense         *Sense    `json:"sense,omitempty"`
	Units         byte      `json:"units"` // TRANSFER COUNT UNITS
	TransferCount uint64    `json:"transfer_count"`
	Steps         uint16    `json:"steps"`    // OPERATION COUNTER
	Segments      uint16    `json:"segments"` // SEGMENTS PROCESSED
	Ended         time.Time `json:"ended"`
	// Held is the data for RECEIVE COPY DATA; HeldDiscarded: earlier data was discarded.
	Held          []byte `json:"held,omitempty"`
	HeldDiscarded bool   `json:"held_discarded,omitempty"`
	// DetailsReported: the details of the failure were reported.
	DetailsReported bool `json:"details_reported,omitempty"`
	// Token is the ROD token that was not delivered yet, or nil.
	Token []byte `json:"token,omitempty"`
}

// RunningCopy is a copy operation in the background that has stopped, and goes on. What it
// counts is written.
type RunningCopy struct {
	ListID uint32 `json:"list_id"`
	// CDB and Parameters are the command with its parameter list.
	CDB        []byte    `json:"cdb"`
	Parameters []byte    `json:"parameters"`
	Began      time.Time `json:"began"`
	// TransferCount is in the units of the report. An operation that makes a token begins
	// again, with 0.
	TransferCount uint64 `json:"transfer_count"`
	Steps         uint32 `json:"steps"` // OPERATION COUNTER
	// Segment is the index of the first segment that is not complete, SegmentBytes is
	// its part of TransferCount.
	Segment      uint16 `json:"segment,omitempty"`
	SegmentBytes uint64 `json:"segment_bytes,omitempty"`
	// Residual is the residual data of the segments before (SPC-4 r37 5.17.7.2);
	// its last ResidualSource bytes are data of the source.
	Residual       []byte `json:"residual,omitempty"`
	ResidualSource uint32 `json:"residual_source,omitempty"`
	// Held is the held data so far; HeldDiscarded: earlier data was discarded.
	Held          []byte `json:"held,omitempty"`
	HeldDiscarded bool   `json:"held_discarded,omitempty"`
}

// Sense is sense data (SPC-4 r37 4.5).
type Sense struct {
	Key              byte    `json:"key"`
	ASC              uint16  `json:"asc"` // with the qualifier
	Information      *uint64 `json:"information,omitempty"`
	CommandSpecific  *uint64 `json:"command_specific,omitempty"`
	SenseKeySpecific []byte  `json:"sense_key_specific,omitempty"`
	Deferred         bool    `json:"deferred,omitempty"`
	// Cause is the error, for the log.
	Cause     string     `json:"cause,omitempty"`
	Forwarded *Forwarded `json:"forwarded,omitempty"`
}

// Forwarded is the status of a logical unit of a third-party copy (SPC-4 r37 4.5.2.7).
type Forwarded struct {
	Destination bool   `json:"destination,omitempty"`
	Status      byte   `json:"status"`
	Sense       *Sense `json:"sense,omitempty"`
}

// Encode returns the state as a program of the same Version decodes it.
func (s *State) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(s)
	if err == nil && len(data) > MaxEncoded {
		err = fmt.Errorf("%d bytes exceed the maximum of %d", len(data), MaxEncoded)
	}
	if err != nil {
		return nil, fmt.Errorf("encode state of a handover: %w", err)
	}
	return data, nil
}

// Decode returns the State that Encode has encoded. It refuses another version, and a
// State beyond the bounds.
func Decode(data []byte) (*State, error) {
	if len(data) > MaxEncoded {
		return nil, fmt.Errorf("decode state of a handover: %d bytes exceed the maximum of %d", len(data), MaxEncoded)
	}
	// The version first: the rest of another version may not decode.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("decode state of a handover: %w", err)
	}
	if v.Version != Version {
		return nil, fmt.Errorf("state of a handover: version %d, not %d: %w", v.Version, Version, errors.ErrUnsupported)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("decode state of a handover: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return &s, nil
}
