package stream

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// ID is the identity of a store, a volume or a snapshot; zero stands for none.
type ID [16]byte

// String returns the identity in hexadecimal.
func (id ID) String() string { return fmt.Sprintf("%x", id[:]) }

// Header says what a stream describes, and where that was.
type Header struct {
	// Store is the identity of the store that the stream was made by.
	Store ID
	// Volume is the identity of the volume or file that the content is of, and VolumeName
	// its name there; zero and empty where that volume was deleted.
	Volume     ID
	VolumeName string
	// Snapshot is the identity of the snapshot whose content this is, and SnapshotName its
	// name there; zero and empty where the content is of no snapshot, so that nothing can
	// be based on it.
	Snapshot     ID
	SnapshotName string
	// Base is the identity of the snapshot that the stream says the differences to, and
	// BaseName its name there; zero and empty for a whole stream.
	Base     ID
	BaseName string
	// File: what is described is a file, not a volume.
	File bool
	// Size is the size of the content in bytes, BaseSize that of the base.
	Size, BaseSize int64
	// Created is when the snapshot was made, or the stream where there is none; in seconds.
	Created time.Time
	// Start is where the stream begins, in bytes of the content: more than zero where it
	// continues one that ended too early.
	Start int64
}

// The flags of a header.
const (
	flagIncremental = 1 << iota // there is a base
	flagContinued               // Start is not zero
	flagFile
	knownFlags = flagIncremental | flagContinued | flagFile
)

const (
	fixedLength = 16  // of the beginning, up to the length of the rest
	leastHeader = 106 // of the rest, with empty names
	mostHeader  = leastHeader + 3*MaxName

	// maxYear is the last one that RFC 3339 can write: what has a later time has no JSON.
	maxYear = 9999
)

// Incremental reports whether the stream has only what differs from a base.
func (h *Header) Incremental() bool { return h.Base != ID{} }

func (h *Header) flags() uint16 {
	var flags uint16
	if h.Incremental() {
		flags |= flagIncremental
	}
	if h.Start > 0 {
		flags |= flagContinued
	}
	if h.File {
		flags |= flagFile
	}
	return flags
}

// check returns what is wrong with a header, "" for nothing.
func (h *Header) check() string {
	for _, name := range []string{h.VolumeName, h.SnapshotName, h.BaseName} {
		if len(name) > MaxName || !utf8.ValidString(name) {
			return fmt.Sprintf("a name of %d bytes that is too long, or not UTF-8", len(name))
		}
	}
	switch {
	case h.Created.UTC().Year() < 1 || h.Created.UTC().Year() > maxYear:
		return fmt.Sprintf("made %d seconds after 1970, not in the years 1 to %d", h.Created.Unix(), maxYear)
	case h.Size < 0 || h.Size > MaxSize || h.BaseSize < 0 || h.BaseSize > MaxSize:
		return fmt.Sprintf("size %d, base size %d", h.Size, h.BaseSize)
	case h.Start < 0 || h.Start > h.Size || h.Start%BlockLength != 0 && h.Start != h.Size:
		return fmt.Sprintf("start %d of %d", h.Start, h.Size)
	case !h.Incremental() && (h.BaseName != "" || h.BaseSize != 0):
		return "a base without identity"
	case h.Snapshot == ID{} && h.SnapshotName != "":
		return "a snapshot without identity"
	case h.Incremental() && h.Snapshot == h.Base:
		return "a snapshot that is its own base"
	}
	return ""
}

// encode returns the header as bytes.
func (h *Header) encode() ([]byte, error) {
	if problem := h.check(); problem != "" {
		return nil, fmt.Errorf("header of a stream: %s", problem)
	}
	b := append(make([]byte, 0, 512), magic...)
	b = binary.BigEndian.AppendUint16(b, Version)
	b = binary.BigEndian.AppendUint16(b, h.flags())
	b = binary.BigEndian.AppendUint32(b, uint32(leastHeader+len(h.VolumeName)+len(h.SnapshotName)+len(h.BaseName)))
	for _, id := range []ID{h.Store, h.Volume, h.Snapshot, h.Base} {
		b = append(b, id[:]...)
	}
	for _, n := range []int64{h.Size, h.BaseSize, h.Created.Unix(), h.Start} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = binary.BigEndian.AppendUint32(b, BlockLength)
	for _, name := range []string{h.VolumeName, h.SnapshotName, h.BaseName} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
	}
	return binary.BigEndian.AppendUint32(b, checksum(b)), nil
}

// readHeader reads a header from the beginning of a stream.
func readHeader(r io.Reader) (h Header, raw []byte, err error) {
	fixed := make([]byte, fixedLength)
	n, err := io.ReadFull(r, fixed)
	if begun := min(n, len(magic)); string(fixed[:begun]) != magic[:begun] {
		return h, nil, fmt.Errorf("%w: it does not begin with its mark", ErrFormat)
	}
	if err != nil {
		return h, nil, endedAt(int64(n), err)
	}
	version, flags, length := binary.BigEndian.Uint16(fixed[8:]), binary.BigEndian.Uint16(fixed[10:]), binary.BigEndian.Uint32(fixed[12:])
	if version != Version {
		return h, nil, fmt.Errorf("%w: it has version %d of the format, and this program reads version %d", ErrVersion, version, Version)
	}
	if length < leastHeader || length > mostHeader {
		return h, nil, damagedf(12, "a header of %d bytes", length)
	}
	raw = append(fixed, make([]byte, length+4)...)
	if n, err := io.ReadFull(r, raw[fixedLength:]); err != nil {
		return h, nil, endedAt(int64(fixedLength+n), err)
	}
	body, sum := raw[:len(raw)-4], binary.BigEndian.Uint32(raw[len(raw)-4:])
	if checksum(body) != sum {
		return h, nil, damagedf(0, "the checksum of the header does not match")
	}
	if unknown := flags &^ knownFlags; unknown != 0 {
		return h, nil, fmt.Errorf("%w: it has the flags %#x, which this program does not know", ErrVersion, unknown)
	}
	err = h.decode(body[fixedLength:])
	h.File = flags&flagFile != 0
	if err == nil && h.flags() != flags {
		err = damagedf(10, "the flags %#x contradict the header", flags)
	}
	return h, raw, err
}

// decode sets h to what comes after the fixed part, of at least leastHeader bytes.
func (h *Header) decode(b []byte) error {
	for i, id := range []*ID{&h.Store, &h.Volume, &h.Snapshot, &h.Base} {
		copy(id[:], b[16*i:])
	}
	h.Size, h.BaseSize = int64(binary.BigEndian.Uint64(b[64:])), int64(binary.BigEndian.Uint64(b[72:]))
	h.Created = time.Unix(int64(binary.BigEndian.Uint64(b[80:])), 0).UTC()
	h.Start = int64(binary.BigEndian.Uint64(b[88:]))
	if n := binary.BigEndian.Uint32(b[96:]); n != BlockLength {
		return fmt.Errorf("%w: it has blocks of %d bytes, and this program reads those of %d", ErrVersion, n, BlockLength)
	}
	b = b[100:]
	for _, name := range []*string{&h.VolumeName, &h.SnapshotName, &h.BaseName} {
		if len(b) < 2 {
			return damagedf(fixedLength, "the names are longer than the header")
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n > len(b) {
			return damagedf(fixedLength, "the names are longer than the header")
		}
		*name, b = string(b[:n]), b[n:]
	}
	if len(b) > 0 {
		return damagedf(fixedLength, "the header is longer than its names")
	}
	if problem := h.check(); problem != "" {
		return damagedf(fixedLength, "%s", problem)
	}
	return nil
}

// endedAt is the error for a read that failed with err after at bytes of the stream.
func endedAt(at int64, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends after %d bytes", ErrTruncated, at)
	}
	return fmt.Errorf("read the stream at byte %d: %w", at, err)
}

// versionError is the error for something with a right checksum that this version of the
// format does not have.
func versionError(at int64, kind, encoding byte) error {
	return fmt.Errorf("%w: at byte %d it has something of kind %d, encoding %d, which this program does not know", ErrVersion, at, kind, encoding)
}
