package meta

import (
	"errors"
	"fmt"
)

// ErrDamaged: what is stored cannot be read right from any copy.
var ErrDamaged = errors.New("metadata is damaged")

// DamagedError says what cannot be read. It is an ErrDamaged.
type DamagedError struct {
	// File is the first copy of the file that is damaged.
	File string
	// Key is the row that is lost, nil where it is not one row.
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

// maxDamage bounds the rows that a scan lists.
const maxDamage = 100

// damageList collects what a scan could not read.
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
