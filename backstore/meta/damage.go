package meta

import (
	"errors"
	"fmt"
)

// ErrDamaged reports data that no copy has undamaged.
var ErrDamaged = errors.New("metadata is damaged")

// DamagedError reports data that cannot be read. It wraps ErrDamaged.
type DamagedError struct {
	// File is the first copy of the damaged file.
	File string
	// Key is the lost row, or nil if it is not a single row.
	Key []byte
	Err error
}

func (e *DamagedError) Error() string {
	if e.Key == nil {
		return fmt.Sprintf("%v: %s: %v", ErrDamaged, e.File, e.Err)
	}
	return fmt.Sprintf("%v: row %q in %s: %v", ErrDamaged, e.Key, e.File, e.Err)
}

// Unwrap returns ErrDamaged and the cause.
func (e *DamagedError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

var (
	errChecksum = errors.New("checksum mismatch in every copy")
	errMissing  = errors.New("no copy can be opened")
)

// maxDamage bounds the errors that a scan returns.
const maxDamage = 100

// damageList collects the errors of a scan.
type damageList struct {
	errs []error
	more int
}

func (l *damageList) add(err error) {
	if len(l.errs) < maxDamage {
		l.errs = append(l.errs, err)
	} else {
		l.more++
	}
}

func (l *damageList) err() error {
	if l.more > 0 {
		l.errs = append(l.errs, fmt.Errorf("%w: %d rows more", ErrDamaged, l.more))
		l.more = 0
	}
	return errors.Join(l.errs...)
}
