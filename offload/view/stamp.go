package view

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A mirror knows its legs in the store by their identities. A plain file is known by
// its path only, under which an older copy of it can lie: so it carries a stamp after
// its data, which says how far the mirror was when it last wrote to the file. The
// stamp is a part of the file's bytes, because every way of copying them takes it
// along.

// StampLength is the length in bytes of a stamp.
const StampLength = 4096

// Stamped is where the stamp of a leg is kept.
type Stamped interface {
	// DataBytes is the length of the data before the stamp.
	DataBytes() int64
	// ReadStamp returns the StampLength bytes after the data, nil where the file ends
	// with the data.
	ReadStamp(ctx context.Context) ([]byte, error)
	// WriteStamp writes them, durably.
	WriteStamp(ctx context.Context, p []byte) error
}

// Stamp says of which mirror a file is a leg, and since when it has been written to.
type Stamp struct {
	// Mirror is the random identity of the mirror.
	Mirror [16]byte
	// Generation is that of the mirror.
	Generation uint64
	// DataBytes is the length of the data before the stamp.
	DataBytes int64
}

const stampMagic = "odx mirror leg 1"

// ErrNoStamp: bytes are not those of a stamp.
var ErrNoStamp = errors.New("no stamp of a mirror")

// Offsets of what a stamp has; the rest are zeros.
const (
	stampMirror     = 16
	stampGeneration = 32
	stampDataBytes  = 40
	stampSum        = 48 // CRC-32C of what is before
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

// ParseStamp reads what Encode wrote. Its error wraps ErrNoStamp.
func ParseStamp(p []byte) (Stamp, error) {
	if len(p) != StampLength || !bytes.HasPrefix(p, []byte(stampMagic)) {
		return Stamp{}, ErrNoStamp
	}
	if crc32.Checksum(p[:stampSum], castagnoli) != binary.LittleEndian.Uint32(p[stampSum:]) || !allZeros(p[stampSum+4:]) {
		return Stamp{}, fmt.Errorf("%w: its checksum does not match", ErrNoStamp)
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

// generation returns that of a leg in a mirror, 0 where it is not known: the oldest of
// the files that the leg is in.
func (l *Leg) generation(ctx context.Context, mirror [16]byte) (uint64, error) {
	oldest := ^uint64(0)
	for _, file := range l.Files {
		p, err := file.ReadStamp(ctx)
		if err != nil {
			return 0, fmt.Errorf("leg %s: read its stamp: %w", l.ID, err)
		}
		s, err := ParseStamp(p)
		if err != nil || s.Mirror != mirror {
			return 0, nil
		}
		oldest = min(oldest, s.Generation)
	}
	return oldest, nil
}

// stamp writes a generation after the data of all files that the leg is in.
func (l *Leg) stamp(ctx context.Context, s Stamp) error {
	for _, file := range l.Files {
		s.DataBytes = file.DataBytes()
		if err := file.WriteStamp(ctx, s.Encode()); err != nil {
			return fmt.Errorf("leg %s: write its stamp: %w", l.ID, err)
		}
	}
	return nil
}
