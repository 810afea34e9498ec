package replica

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"odx/backstore"
	"odx/stream"
)

// Keys of the records of this package: that of a stream that is being received ends in the
// name of what it becomes, that of an origin in the number of the volume.
const (
	partialPrefix = "replica/partial/"
	originPrefix  = "replica/origin/"
)

// receiveVersion is the version of storedPartial and storedOrigin.
const receiveVersion = 1

// Origin says where the content of a snapshot, a volume or a file was received from.
type Origin struct {
	// Store, Volume and Snapshot are identities; those of volume and snapshot are zero
	// where the stream had none.
	Store, Volume, Snapshot  stream.ID
	VolumeName, SnapshotName string
	// Created is when the snapshot was made there, Received when it arrived.
	Created, Received time.Time
}

// storedOrigin is an Origin as the store has it: durable.
type storedOrigin struct {
	Version      int       `json:"version"`
	Store        string    `json:"store"` // identities are in hexadecimal
	Volume       string    `json:"volume"`
	VolumeName   string    `json:"volume_name,omitempty"`
	Snapshot     string    `json:"snapshot"`
	SnapshotName string    `json:"snapshot_name,omitempty"`
	Created      time.Time `json:"created"`
	Received     time.Time `json:"received"`
}

// storedPartial is a stream that is being received, or has ended too early: durable.
type storedPartial struct {
	Version int `json:"version"`
	// Name is what it becomes, as an administrator writes it; Hidden is the name that its
	// volume or file has until then, File which of them it is.
	Name   string `json:"name"`
	Hidden string `json:"hidden"`
	File   bool   `json:"file,omitempty"`
	// Made is the name that the snapshot gets; "": none is made.
	Made string       `json:"made,omitempty"`
	From storedOrigin `json:"from"`
	// Base is the identity of the base, in hexadecimal; "" for a whole stream.
	Base     string    `json:"base,omitempty"`
	BaseName string    `json:"base_name,omitempty"`
	Size     int64     `json:"size"`
	Offset   int64     `json:"offset"` // all before it is there, in bytes
	Began    time.Time `json:"began"`
	// Ready: the hidden volume has the content of the base, or the size. What is not ready
	// cannot be continued.
	Ready bool `json:"ready,omitempty"`
	// Complete: all of it is there and right, and what is left is to make it visible.
	Complete bool `json:"complete,omitempty"`
	// Replaces: the content replaces that of an existing volume.
	Replaces bool `json:"replaces,omitempty"`
}

// Partial is a stream that ended too early, or is being received.
type Partial struct {
	// Name is what it becomes, Snapshot the name of the sender's snapshot, Base that of the
	// snapshot that it is based on, empty for none.
	Name, Snapshot, Base string
	// OffsetBytes of SizeBytes are there.
	OffsetBytes, SizeBytes int64
	Began                  time.Time
	// Token is what the sender continues with.
	Token string
	// Receiving: a stream is being received now.
	Receiving bool
}

var errRecord = errors.New("malformed record of a received stream")

func parseID(text string) (id stream.ID, err error) {
	if text == "" {
		return id, nil
	}
	if n, err := hex.DecodeString(text); err != nil || copy(id[:], n) != len(id) || len(n) != len(id) {
		return id, fmt.Errorf("%w: identity %q", errRecord, text)
	}
	return id, nil
}

func decodeVersioned(value []byte, into any, version *int) error {
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("%w: %w", errRecord, err)
	}
	if *version != receiveVersion {
		return fmt.Errorf("record of a received stream of a later version: %d, this program knows %d", *version, receiveVersion)
	}
	return nil
}

func encodeRecord(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("record of a received stream: %w", err)
	}
	return b, nil
}

func storeOrigin(h *stream.Header, received time.Time) storedOrigin {
	return storedOrigin{
		Version: receiveVersion, Store: h.Store.String(), Volume: h.Volume.String(), VolumeName: h.VolumeName,
		Snapshot: h.Snapshot.String(), SnapshotName: h.SnapshotName, Created: h.Created, Received: received,
	}
}

func originKey(v *backstore.Volume) []byte {
	id := v.ID()
	return fmt.Appendf(nil, "%s%x", originPrefix, id[:])
}

// Origin returns where the content of a volume or a file was received from; ok is false
// where it was not.
func (s *Streams) Origin(v *backstore.Volume) (o Origin, ok bool, err error) {
	value, err := s.store.GetRecord(originKey(v))
	if errors.Is(err, backstore.ErrNotFound) {
		return o, false, nil
	}
	if err != nil {
		return o, false, err
	}
	var stored storedOrigin
	if err := decodeVersioned(value, &stored, &stored.Version); err != nil {
		return o, false, fmt.Errorf("%v: %w", v, err)
	}
	o = Origin{VolumeName: stored.VolumeName, SnapshotName: stored.SnapshotName, Created: stored.Created, Received: stored.Received}
	for text, id := range map[string]*stream.ID{stored.Store: &o.Store, stored.Volume: &o.Volume, stored.Snapshot: &o.Snapshot} {
		if *id, err = parseID(text); err != nil {
			return o, false, fmt.Errorf("%v: %w", v, err)
		}
	}
	return o, true, nil
}

func partialKey(name string) []byte { return []byte(partialPrefix + name) }

// partial returns the record of a name; nil if there is none.
func (s *Streams) partial(name string) (*storedPartial, error) {
	value, err := s.store.GetRecord(partialKey(name))
	if errors.Is(err, backstore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &storedPartial{}
	if err := decodeVersioned(value, p, &p.Version); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// partials returns all records, by name.
func (s *Streams) partials() (all []*storedPartial, err error) {
	err = s.store.ScanRecords([]byte(partialPrefix), func(key, value []byte) error {
		p := &storedPartial{}
		if err := decodeVersioned(value, p, &p.Version); err != nil {
			return fmt.Errorf("%s: %w", key[len(partialPrefix):], err)
		}
		all = append(all, p)
		return nil
	})
	return all, err
}

// keep stores the record, durably once what is written before it is.
func (s *Streams) keep(ctx context.Context, p *storedPartial) error {
	value, err := encodeRecord(p)
	if err != nil {
		return err
	}
	return s.store.PutRecords(ctx, backstore.Record{Key: partialKey(p.Name), Value: value})
}

// hidden returns the volume or file that becomes what p says.
func (s *Streams) hidden(p *storedPartial) (*backstore.Volume, error) {
	if p.File {
		return s.store.File(p.Hidden)
	}
	return s.store.Volume(p.Hidden)
}

func (s *Streams) deleteHidden(ctx context.Context, p *storedPartial) error {
	var err error
	if p.File {
		err = s.store.DeleteFile(ctx, p.Hidden)
	} else {
		err = s.store.DeleteVolume(ctx, p.Hidden)
	}
	if errors.Is(err, backstore.ErrNotFound) {
		return nil
	}
	return err
}

// token is what a sender needs to continue a stream.
type token struct {
	snapshot, base stream.ID
	offset         int64
}

// tokenPrefix begins the text of a token. Its number is the version.
const tokenPrefix = "odx-resume-1-"

const tokenLength = 16 + 16 + 8 + 4

// String returns the text of the token.
func (t token) String() string {
	b := append(append([]byte(nil), t.snapshot[:]...), t.base[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.offset))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

func parseToken(text string) (t token, err error) {
	if len(text) < len(tokenPrefix) || text[:len(tokenPrefix)] != tokenPrefix {
		return t, fmt.Errorf("%w: %q is no token to resume a stream", ErrResume, text)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text[len(tokenPrefix):])
	if err != nil || len(b) != tokenLength || crc32.ChecksumIEEE(b[:40]) != binary.BigEndian.Uint32(b[40:]) {
		return t, fmt.Errorf("%w: the token is not as it was printed", ErrResume)
	}
	t = token{stream.ID(b[:16]), stream.ID(b[16:32]), int64(binary.BigEndian.Uint64(b[32:]))}
	if t.offset < 0 {
		return t, fmt.Errorf("%w: the token is not as it was printed", ErrResume)
	}
	return t, nil
}

// token returns the token of a partial stream.
func (p *storedPartial) token() (t token, err error) {
	if t.snapshot, err = parseID(p.From.Snapshot); err != nil {
		return t, err
	}
	t.base, err = parseID(p.Base)
	t.offset = p.Offset
	return t, err
}
