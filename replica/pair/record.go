package pair

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"odx/backstore"
	"odx/offload"
)

// Role is what a side of a pair is. The words are durable.
type Role string

// The roles. A former source is frozen and not served.
const (
	Source  Role = "source"
	Replica Role = "replica"
	Former  Role = "former"
)

// recordPrefix begins the keys of records; the pair's ID follows in hexadecimal.
// recordVersion is the version of stored.
const (
	recordPrefix  = "replica/pair/"
	recordVersion = 1
)

// ID names a pair or a point: a random number.
type ID [16]byte

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) error {
	if n, err := hex.DecodeString(string(text)); err != nil || copy(id[:], n) != len(id) || len(n) != len(id) {
		return fmt.Errorf("%w: %.40q is not an ID", errRecord, text)
	}
	return nil
}

// point is a state of the source that a snapshot of this store has.
type point struct {
	ID       ID     `json:"id"`
	Snapshot uint64 `json:"snapshot"`
	// Taken is when the source had this state, by the clock of this server.
	Taken time.Time `json:"taken"`
	// Final: the source was frozen, and has had no other state since.
	Final bool `json:"final,omitempty"`
}

// work is a hidden object that is being made equal to a point. It began as Base, or empty.
type work struct {
	Point ID     `json:"point"`
	Base  ID     `json:"base,omitzero"`
	Name  string `json:"name"`
	// Begun: it is as Base, but for what was fetched since.
	Begun bool `json:"begun,omitempty"`
}

// record is what a side keeps of a pair. It is durable: another name in it or in its types
// loses pairs.
type record struct {
	Version int    `json:"version"`
	ID      ID     `json:"-"` // in the key
	Name    string `json:"name"`
	Role    Role   `json:"role"`
	Epoch   uint64 `json:"epoch"`

	File   bool   `json:"file,omitempty"`
	Object string `json:"object"` // name of the volume or file
	// Volume is the identity of the volume, or of the file that is a replica; zero as long
	// as there is none, and for a file that is a source: its name decides.
	Volume ID `json:"volume,omitzero"`

	PeerStore  ID     `json:"peer_store"`
	PeerName   string `json:"peer_name"`
	PeerObject string `json:"peer_object,omitempty"`

	// Entry names the entry of the configuration that has selected the source; "" for one that
	// was named.
	Entry string `json:"entry,omitempty"`

	// Identity is what initiators see of a LUN on the source.
	Identity ID `json:"identity,omitzero"`

	Common *point `json:"common,omitempty"`
	// Next is, at the source, a point that is not acknowledged yet; at the replica, one that
	// is complete and being revealed.
	Next *point `json:"next,omitempty"`
	Work *work  `json:"work,omitempty"`

	// Move is set if the pair is a migration: its roles do not change by an administrator's
	// act.
	Move *moving `json:"move,omitempty"`

	Paused bool `json:"paused,omitempty"`
	// Untold: the other side may not know of the epoch yet.
	Untold bool `json:"untold,omitempty"`
	// Orphan: the source has given up the pair, so that there are no more rounds.
	Orphan bool `json:"orphan,omitempty"`
	// Succeeded is when the last round ended, by the clock of this server.
	Succeeded time.Time `json:"succeeded,omitzero"`
}

// moving is what both sides know of a migration.
type moving struct {
	LUNs []movedLUN `json:"luns"`
	// Arrives: this side is the destination.
	Arrives bool `json:"arrives,omitempty"`
	// Served: the configuration of the destination names the LUNs. At the source: the
	// destination has answered so.
	Served bool `json:"served,omitempty"`
}

// movedLUN is a LUN that is served from the source first, and then from the destination.
type movedLUN struct {
	Target      string `json:"target"`
	Number      uint16 `json:"lun"`
	BlockLength int    `json:"block_length"`
	ReadOnly    bool   `json:"read_only,omitempty"`
}

var (
	errRecord = errors.New("malformed record of a replica")
	errNewer  = errors.New("record of a replica of a later version")
)

// key returns the key of the record.
func (r *record) key() []byte { return []byte(recordPrefix + r.ID.String()) }

// stored returns the record as the store has it. It fails for times that have no form in JSON, those
// of a clock beyond the year 9999.
func (r *record) stored() (backstore.Record, error) {
	c := *r
	c.Version = recordVersion
	value, err := json.Marshal(&c)
	if err != nil {
		return backstore.Record{}, fmt.Errorf("record of %v: %w", r, err)
	}
	return backstore.Record{Key: r.key(), Value: value}, nil
}

// deletion returns what deletes the record.
func (r *record) deletion() backstore.Record { return backstore.Record{Key: r.key()} }

// decodeRecord reads what stored returns.
func decodeRecord(key, value []byte) (*record, error) {
	var r record
	if len(key) < len(recordPrefix) || string(key[:len(recordPrefix)]) != recordPrefix {
		return nil, fmt.Errorf("%w: key %.60q", errRecord, key)
	}
	if err := r.ID.UnmarshalText(key[len(recordPrefix):]); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if r.Version > recordVersion {
		return nil, fmt.Errorf("%w: %d, this program knows up to %d", errNewer, r.Version, recordVersion)
	}
	switch {
	case r.Version < 1, r.Name == "", r.Object == "", r.Epoch == 0, r.Role != Source && r.Role != Replica && r.Role != Former:
		return nil, fmt.Errorf("%w: version %d, name %.40q, object %.40q, role %.20q, epoch %d", errRecord, r.Version, r.Name, r.Object, string(r.Role), r.Epoch)
	}
	return &r, nil
}

// objectName returns the name of the volume, or file:NAME.
func (r *record) objectName() string { return objectName(r.File, r.Object) }

func objectName(file bool, name string) string {
	if file {
		return offload.FilePrefix + name
	}
	return name
}

// String names the pair for people.
func (r *record) String() string { return fmt.Sprintf("replica %s of %s", r.Name, r.PeerName) }

// points returns the points that there are.
func (r *record) points() []*point {
	var list []*point
	for _, p := range []*point{r.Common, r.Next} {
		if p != nil {
			list = append(list, p)
		}
	}
	return list
}

// find returns the point of that ID, nil for none.
func (r *record) find(id ID) *point {
	for _, p := range r.points() {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// commonID returns the ID of the common point; zero for none.
func (r *record) commonID() ID {
	if r.Common == nil {
		return ID{}
	}
	return r.Common.ID
}
