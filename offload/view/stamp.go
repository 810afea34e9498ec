package view

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A mirror identifies its legs in the store by their identities. A plain file only has
// a path, and an older copy may replace it. So it has a stamp after its data with the
// generation of the mirror at its last write to the file. The stamp is in the file's
// content, so that every copy of the file has it.

// StampLength is the length in bytes of a stamp.
const StampLength = 4096

// Stamped is a file with data and a stamp.
type Stamped interface {
	// DataBytes is the length of the data before the stamp.
	DataBytes() int64
	// ReadStamp returns the StampLength bytes after the data, or nil if the file ends
	// with the data.
	ReadStamp(ctx context.Context) ([]byte, error)
	// WriteStamp writes the StampLength bytes after the data, durably.
	WriteStamp(ctx context.Context, p []byte) error
}

// Stamp is the mirror of a file and the generation of its last write.
type Stamp struct {
	// Mirror is the random identity of the mirror.
	Mirror [16]byte
	// Generation is the generation of the mirror.
	Generation uint64
	// DataBytes is the length of the data before the stamp.
	DataBytes int64
}

const stampMagic = "odx mirror leg 1"

// ErrNoStamp reports bytes that are not a valid stamp.
var ErrNoStamp = errors.New("no stamp of a mirror")

// Offsets of the fields of a stamp; the other bytes are zeros.
const (
	stampMirror     = 16
	stampGeneration = 32
	stampDataBytes  = 40
	stampSum        = 48 // CRC-32C of the preceding bytes
)

// Encode returns the StampLength bytes of a stamp.
func (s *Stamp) Encode() []byte {
	p := make([]byte, StampLength)
	copy(p, stampMagic)
	copy(p[stampMirror:], s.Mirror[:])
	binary.LittleEndian.PutUint64(p[stampGeneration:], s.Generation)
	binary.LittleEndian.PutUint64(p[stampDataBytes:], uint64(s.DataBytes))
	binary.LittleEndian.PutUint32(p[stampSum:], crc32.Checksum(p[:stampSum], castagnoli))
	return p
}

// ParseStamp decodes a stamp. Its error wraps ErrNoStamp.
func ParseStamp(p []byte) (Stamp, error) {
	if len(p) != StampLength || !bytes.HasPrefix(p, []byte(stampMagic)) {
		return Stamp{}, ErrNoStamp
	}
	if crc32.Checksum(p[:stampSum], castagnoli) != binary.LittleEndian.Uint32(p[stampSum:]) || !allZeros(p[stampSum+4:]) {
		return Stamp{}, fmt.Errorf("%w: checksum mismatch", ErrNoStamp)
	}
	s := Stamp{
		Mirror:     [16]byte(p[stampMirror:]),
		Generation: binary.LittleEndian.Uint64(p[stampGeneration:]),
		DataBytes:  int64(binary.LittleEndian.Uint64(p[stampDataBytes:])),
	}
	if s.DataBytes < 0 {
		return Stamp{}, fmt.Errorf("%w: %d bytes of data", ErrNoStamp, s.DataBytes)
	}
	return s, nil
}

func allZeros(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// generation returns the oldest generation of the leg's files in the mirror, or 0 if it
// is unknown.
func (l *Leg) generation(ctx context.Context, mirror [16]byte) (uint64, error) {
	oldest := ^uint64(0)
	for _, file := range l.Files {
		p, err := file.ReadStamp(ctx)
		if err != nil {
			return 0, fmt.Errorf("leg %s: read stamp: %w", l.ID, err)
		}
		s, err := ParseStamp(p)
		if err != nil || s.Mirror != mirror {
			return 0, nil
		}
		oldest = min(oldest, s.Generation)
	}
	return oldest, nil
}

// stamp writes a stamp to all files of the leg.
func (l *Leg) stamp(ctx context.Context, s Stamp) error {
	for _, file := range l.Files {
		s.DataBytes = file.DataBytes()
		if err := file.WriteStamp(ctx, s.Encode()); err != nil {
			return fmt.Errorf("leg %s: write stamp: %w", l.ID, err)
		}
	}
	return nil
}
