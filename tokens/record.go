package tokens

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"odx/backstore"
	"odx/blockdev"
)

// Keys of the manager's records in the store. A token's key ends in its ID.
const (
	keyPrefix       = "token/"
	sealKey         = keyPrefix + "key"
	livePrefix      = keyPrefix + "live/"
	tombstonePrefix = keyPrefix + "dead/"
)

// Creator identifies who made a token.
type Creator struct {
	// Initiator and Target name the I_T nexus; empty for a token that was not
	// made over SCSI.
	Initiator string
	Target    string
	// Volume names the source.
	Volume string
}

// recordVersion is the version of storedRecord and of tombstone. Records without one are
// of the first form, which lacked nothing else.
const recordVersion = 1

// record is the state of a live token that the store keeps.
type record struct {
	Type        RODType
	Name        []byte // the token's secret
	Management  []byte // the ROD management token
	Snapshot    uint64
	Length      int64
	BlockLength int
	Creator     Creator
	Created     time.Time
	LastUsed    time.Time
	Inactivity  time.Duration
	Uses        uint64
	Priority    int
	Access      Access

	// Volume, the ID of one, and Ranges are where the data is when there is no
	// snapshot.
	Volume []byte
	Ranges []blockdev.Range
}

// storedRecord is the record as the store has it. It and the types of its fields are
// durable: another name in them loses the tokens of stores.
type storedRecord struct {
	Version     int           `json:"version"`
	Type        uint32        `json:"type"`
	Name        []byte        `json:"name"`
	Management  []byte        `json:"management"`
	Snapshot    uint64        `json:"snapshot,omitempty"`
	Length      int64         `json:"length"`
	BlockLength int           `json:"block_length"`
	Creator     storedCreator `json:"creator"`
	Created     time.Time     `json:"created"`
	LastUsed    time.Time     `json:"last_used"`
	Inactivity  time.Duration `json:"inactivity"` // nanoseconds
	Uses        uint64        `json:"uses"`
	Priority    int           `json:"priority,omitempty"`
	Access      string        `json:"access,omitempty"`
	Volume      []byte        `json:"volume,omitempty"`
	Ranges      []storedRange `json:"ranges,omitempty"`
}

type storedCreator struct {
	Initiator string `json:"initiator,omitempty"`
	Target    string `json:"target,omitempty"`
	Volume    string `json:"volume,omitempty"`
}

// storedRange is in bytes. The first program gave its fields no names for JSON.
type storedRange struct {
	Offset int64 `json:"Offset"`
	Length int64 `json:"Length"`
}

var (
	errRecord = errors.New("malformed token record")
	// errNewer: a later version of the program wrote the record.
	errNewer = errors.New("token record of a later version")
)

func (r *record) encode() []byte {
	stored := storedRecord{
		Version: recordVersion, Type: uint32(r.Type), Name: r.Name, Management: r.Management, Snapshot: r.Snapshot,
		Length: r.Length, BlockLength: r.BlockLength, Creator: storedCreator(r.Creator), Created: r.Created, LastUsed: r.LastUsed,
		Inactivity: r.Inactivity, Uses: r.Uses, Priority: r.Priority, Access: string(r.Access), Volume: r.Volume,
	}
	for _, x := range r.Ranges {
		stored.Ranges = append(stored.Ranges, storedRange(x))
	}
	b, err := json.Marshal(&stored)
	if err != nil {
		panic(err) // no field of storedRecord can fail
	}
	return b
}

func decodeRecord(b []byte) (*record, error) {
	var stored storedRecord
	if err := json.Unmarshal(b, &stored); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if err := checkVersion(stored.Version); err != nil {
		return nil, err
	}
	r := stored.record()
	if len(r.Name) != nameLength || len(r.Management) != ManagementLength {
		return nil, fmt.Errorf("%w: name of %d bytes, management token of %d", errRecord, len(r.Name), len(r.Management))
	}
	if r.Length <= 0 || r.Inactivity <= 0 && r.Type.expires() {
		return nil, fmt.Errorf("%w: length %d, inactivity timeout %v", errRecord, r.Length, r.Inactivity)
	}
	if err := r.checkPlace(); err != nil {
		return nil, err
	}
	return r, nil
}

// record returns what is stored.
func (s *storedRecord) record() *record {
	r := &record{
		Type: RODType(s.Type), Name: s.Name, Management: s.Management, Snapshot: s.Snapshot,
		Length: s.Length, BlockLength: s.BlockLength, Creator: Creator(s.Creator), Created: s.Created, LastUsed: s.LastUsed,
		Inactivity: s.Inactivity, Uses: s.Uses, Priority: s.Priority, Access: Access(s.Access), Volume: s.Volume,
	}
	for _, x := range s.Ranges {
		r.Ranges = append(r.Ranges, blockdev.Range(x))
	}
	return r
}

// checkVersion returns errNewer for a version that this program does not know.
func checkVersion(version int) error {
	if version < 0 || version > recordVersion {
		return fmt.Errorf("%w: %d, this program knows up to %d", errNewer, version, recordVersion)
	}
	return nil
}

// checkPlace checks that the record says where the data is.
func (r *record) checkPlace() error {
	switch r.Type.holding() {
	case inSnapshot:
		return nil
	case nowhere, whereFound:
		return fmt.Errorf("%w: %v", errRecord, r.Type)
	}
	var total int64
	for _, x := range r.Ranges {
		if x.Offset < 0 || x.Length < 0 || total+x.Length < total {
			return fmt.Errorf("%w: %d bytes at %d", errRecord, x.Length, x.Offset)
		}
		total += x.Length
	}
	if len(r.Volume) != 16 || total != r.Length {
		return fmt.Errorf("%w: volume %x, %d bytes in ranges of %d", errRecord, r.Volume, r.Length, total)
	}
	return nil
}

// pinned returns how many bytes the record's snapshot keeps readable.
func (r *record) pinned() int64 {
	if r.Type.holding() != inSnapshot {
		return 0
	}
	return r.Length
}

// tombstone is why a token ended, for the sense code that its holder gets. It is
// durable, as the words of a Cause are.
type tombstone struct {
	Version int       `json:"version"`
	Reason  Reason    `json:"reason"`
	Cause   Cause     `json:"cause,omitempty"`
	Ended   time.Time `json:"died"`
}

func (t tombstone) encode() []byte {
	t.Version = recordVersion
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // no field of tombstone can fail
	}
	return b
}

func decodeTombstone(b []byte) (tombstone, error) {
	var t tombstone
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fmt.Errorf("%w: %w", errRecord, err)
	}
	if err := checkVersion(t.Version); err != nil {
		return t, err
	}
	t.Version = recordVersion
	if t.Reason.err() == nil {
		return t, fmt.Errorf("%w: reason %d", errRecord, t.Reason)
	}
	return t, nil
}

func tokenKey(prefix string, id ID) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefix), uint64(id))
}

func keyID(prefix string, key []byte) (ID, error) {
	if len(key) != len(prefix)+8 {
		return 0, fmt.Errorf("%w: key %q", errRecord, key)
	}
	return ID(binary.BigEndian.Uint64(key[len(prefix):])), nil
}

func deletion(prefix string, id ID) backstore.Record {
	return backstore.Record{Key: tokenKey(prefix, id)}
}

// Reason is why a token ended.
type Reason uint8

// The reasons, in the words of SPC-4 r37 table 111.
const (
	Expired   Reason = iota + 1 // its inactivity timeout passed
	Cancelled                   // the copy manager ended it
	Revoked                     // an administrator ended it
	Deleted                     // a user deleted it (DEL_TKN)
)

// err returns the error that a user of the token gets.
func (r Reason) err() error {
	switch r {
	case Expired:
		return ErrExpired
	case Cancelled:
		return ErrCancelled
	case Revoked:
		return ErrRevoked
	case Deleted:
		return ErrDeleted
	}
	return nil
}

// String returns the reason as a word.
func (r Reason) String() string {
	switch r {
	case Expired:
		return "expired"
	case Cancelled:
		return "cancelled"
	case Revoked:
		return "revoked"
	case Deleted:
		return "deleted"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}
