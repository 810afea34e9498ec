// Package record is the journal's records: what each kind has in the journal, what it says
// to people, and what it asks of the state that it is applied to. The store applies
// records when it replays its journal, and in two other ways where rows of its metadata
// are lost.
package record

import (
	"fmt"

	"odx/backstore/codec"
	"odx/blockdev"
)

// Kinds of journal records; the first byte of each. A number is never used for
// anything else, and what a kind's record looks like never changes.
const (
	KindWrite          = 1
	kindClear          = 2
	kindMap            = 3
	kindSnapshot       = 4
	kindDeleteSnapshot = 5
	kindCreateVolume   = 6
	kindDeleteVolume   = 7
	kindRecords        = 8
	kindResizeVolume   = 9
	kindCloneVolume    = 10
	kindRenameFile     = 11
	kindReplaceFiles   = 12
	kindAlias          = 13
)

// Record is a journal record: what is needed to do an operation once more on the
// state that the records before it produced. Records are written in the order in
// which the operations took effect. Each kind has its own type.
type Record interface {
	// Encode returns the payload in two parts, the kind first. They are valid
	// until the record changes.
	Encode() (head, data []byte)
	// decode reads what follows the kind; d says whether it could.
	decode(d *codec.Decoder)
	// Apply does the operation again.
	Apply(s State) error
	// Changes says what the record changes, for people, and has n follow it.
	Changes(n *Names) []Change
	// Describe returns what the record says, for people.
	Describe() map[string]any
}

// State is what records change. It does for each kind what the record says.
type State interface {
	Write(r *Write) error
	Clear(r *Clear) error
	Map(r *Map) error
	Snapshot(r *Snapshot) error
	DeleteSnapshot(r *DeleteSnapshot) error
	CreateVolume(r *CreateVolume) error
	DeleteVolume(r *DeleteVolume) error
	PutRecords(r *PutClients) error
	ResizeVolume(r *ResizeVolume) error
	CloneVolume(r *CloneVolume) error
	RenameFile(r *RenameFile) error
	ReplaceFiles(r *ReplaceFiles) error
	Alias(r *Alias) error
}

// newRecord returns an empty record of a kind, nil for an unknown one.
func newRecord(kind byte) Record {
	switch kind {
	case KindWrite:
		return &Write{}
	case kindClear:
		return &Clear{}
	case kindMap:
		return &Map{}
	case kindSnapshot:
		return &Snapshot{}
	case kindDeleteSnapshot:
		return &DeleteSnapshot{}
	case kindCreateVolume:
		return &CreateVolume{}
	case kindDeleteVolume:
		return &DeleteVolume{}
	case kindRecords:
		return &PutClients{}
	case kindResizeVolume:
		return &ResizeVolume{}
	case kindCloneVolume:
		return &CloneVolume{}
	case kindRenameFile:
		return &RenameFile{}
	case kindReplaceFiles:
		return &ReplaceFiles{}
	case kindAlias:
		return &Alias{}
	}
	return nil
}

// Decode reads the payload of a journal record of a store whose extents
// have up to unit blocks. The record may keep parts of payload.
func Decode(payload []byte, unit int) (Record, error) {
	d := &codec.Decoder{B: payload, Unit: unit}
	kind := d.Byte()
	if d.Err != nil {
		return nil, d.Err
	}
	r := newRecord(kind)
	if r == nil {
		return nil, fmt.Errorf("%w: unknown kind %d", blockdev.ErrCorrupt, kind)
	}
	r.decode(d)
	d.End()
	return r, d.Err
}
