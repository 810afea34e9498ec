// Package stream is the format in which the content of a volume or a file, or what
// differs between two snapshots of one, goes to a file, a pipe or another server.
// docs/stream.md describes it byte by byte. A Writer and a Reader know the bytes alone: no
// store, and no policy about what is sent or where it goes.
//
// A stream is a header, frames of records, and a frame that ends it. A record is a range
// with its data, or a hole; what lies between records is as in the base, or zeros where
// there is none. Everything has a checksum, and a reader bounds what it keeps in memory,
// so that bytes from anywhere end in records or in an error.
package stream

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the version of the format that this package writes and reads.
const Version = 1

const (
	// BlockLength is the unit of offsets, in bytes.
	BlockLength = 4096
	// MaxData bounds the data of one record, in bytes.
	MaxData = 256 << 10
	// MaxFrame bounds the records of one frame, in bytes, before compression. A frame is
	// stored in no more.
	MaxFrame = 1<<20 + 64<<10
	// MaxSize bounds the size of what a stream describes, in bytes.
	MaxSize = 1 << 62
	// MaxName bounds a name in the header, in bytes.
	MaxName = 1024
)

// magic begins every stream. As in PNG, a byte that is no ASCII and a line feed show what
// text conversions have done.
const magic = "\x89ODXSTR\n"

// The errors that a caller decides on. Errors of a Reader wrap one of them, or are those of
// what it reads from.
var (
	// ErrFormat: the bytes are not a stream.
	ErrFormat = errors.New("not a stream of odx send")
	// ErrVersion: a later version of the program has made the stream, or it has something
	// that this one does not know.
	ErrVersion = errors.New("stream of a later version of odx")
	// ErrTruncated: the stream ends before its end.
	ErrTruncated = errors.New("the stream is incomplete")
	// ErrDamaged: the stream is not as it was written.
	ErrDamaged = errors.New("the stream is damaged")
	// ErrSealed: the stream is encrypted, and no identity given that can decrypt it.
	ErrSealed = errors.New("the stream is encrypted")
	// ErrOrder: records are not in order, or not inside the size. Only a Writer returns it.
	ErrOrder = errors.New("records out of order")
)

// Totals sum up a stream.
type Totals struct {
	// Frames counts the frames of records, Records what is in them.
	Frames, Records uint64
	// DataBytes is the length of all data, HoleBytes that of all holes.
	DataBytes, HoleBytes int64
	// StreamBytes is the length of the stream itself, compressed, but not encrypted. The
	// stream does not have it.
	StreamBytes int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(parts ...[]byte) uint32 {
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}

func damagedf(at int64, format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: %s", ErrDamaged, at, fmt.Sprintf(format, args...))
}
