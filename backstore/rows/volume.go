package rows

import (
	"fmt"

	"odx/blockdev"
)

// Name is a name in one of the two name spaces: of volumes and of files.
type Name struct {
	Name string
	File bool
}

func (k Name) String() string {
	if k.File {
		return "file " + k.Name
	}
	return "volume " + k.Name
}

// Flags of a volume.
const (
	FlagReadOnly = 1 // it is never written to
	FlagFile     = 2 // it is a file
)

// MaxBytes is the largest size of a volume or a file.
const MaxBytes = 1 << 50

// CheckSize refuses a size that no volume has.
func CheckSize(size int64) error {
	if size <= 0 || size > MaxBytes || size%512 != 0 {
		return fmt.Errorf("%w: volume of %d bytes; use a multiple of 512 up to 1 PiB", blockdev.ErrInvalid, size)
	}
	return nil
}

// CheckFileSize refuses a size that no file has.
func CheckFileSize(size int64) error {
	if size < 0 || size > MaxBytes {
		return fmt.Errorf("%w: file of %d bytes; up to 1 PiB are possible", blockdev.ErrInvalid, size)
	}
	return nil
}
