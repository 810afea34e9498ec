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
	// ErrBusy: an aborted write to the range is still in flight. Retry later.
	ErrBusy = errors.New("an aborted write to these blocks is in flight")
	// ErrClosed: the device was closed, or is closing.
	ErrClosed = errors.New("store is closed")
)

// CorruptError names the bytes of a device that cannot be read because what is stored
// for them is damaged. It wraps ErrCorrupt.
type CorruptError struct {
	Name   string // of the device: "volume NAME", "snapshot N"
	Offset int64  // in bytes, of the first block that cannot be read
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: block at byte %d: %v", e.Name, e.Offset, e.Err)
}

// Unwrap returns ErrCorrupt and what was found.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }
