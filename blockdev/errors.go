package blockdev

import (
	"errors"
	"fmt"
)

// The kinds of errors of a block device. An error of one of these causes wraps it.
var (
	// ErrRange: a range is not inside the device, or not in whole logical blocks.
	ErrRange = errors.New("range is not inside the volume")
	// ErrInvalid: an argument that no device accepts (name, size, length).
	ErrInvalid = errors.New("invalid argument")
	// ErrReadOnly: the device is not written to.
	ErrReadOnly = errors.New("volume is read-only")
	// ErrNoSpace: what backs the device is full. Reads and unmaps go on; the write
	// was not done.
	ErrNoSpace = errors.New("no space left in the store")
	// ErrCorrupt: stored bytes do not match their checksum. A read that knows which
	// returns a CorruptError.
	ErrCorrupt = errors.New("stored data is corrupt")
	// ErrBusy: something that will pass is in the way: an aborted write to the range that is
	// still in flight, memory that others use, a peer that is slow. Retry later.
	ErrBusy = errors.New("busy")
	// ErrUnavailable: what the device is on, another server for one, does not answer, or not as
	// it should. It is tried again, so that a command that is repeated may succeed.
	ErrUnavailable = errors.New("not reachable")
	// ErrClosed: the device was closed, or is closing.
	ErrClosed = errors.New("store is closed")
)

// CorruptError names the bytes of a device that cannot be read because what is stored
// for them is damaged. It wraps ErrCorrupt.
type CorruptError struct {
	Name   string // of the device: "volume NAME", "snapshot N"; "" for one that has none
	Offset int64  // in bytes, of the first block that cannot be read
	Err    error
}

func (e *CorruptError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("byte %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("%s: block at byte %d: %v", e.Name, e.Offset, e.Err)
}

// Unwrap returns ErrCorrupt and what was found.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// Translate returns the error of a device that maps its bytes to another one, for an
// error of that: what is at a byte below is at that byte + by here. A caller that reports
// where damage is (INFORMATION of sense data) finds the offset of the device that was
// read.
func Translate(err error, by int64) error {
	below, ok := errors.AsType[*CorruptError](err)
	if !ok || by == 0 {
		return err
	}
	return &CorruptError{Offset: below.Offset + by, Err: err}
}

// Unreadable returns the error of a device that needs something else than its own bytes
// to read byte off, for an error of reading that: a table, a checksum. If it is damage,
// its offset is off.
func Unreadable(err error, off int64) error {
	if !errors.Is(err, ErrCorrupt) {
		return err
	}
	return &CorruptError{Offset: off, Err: err}
}

// First returns which of two errors of one operation is reported: one that is not
// damage, or the one for the lower offset. Each can be nil.
func First(a, b error) error {
	x, isX := errors.AsType[*CorruptError](a)
	y, isY := errors.AsType[*CorruptError](b)
	if b == nil || a != nil && (!isX || isY && x.Offset <= y.Offset) {
		return a
	}
	return b
}
