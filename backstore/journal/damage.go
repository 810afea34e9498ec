package journal

import (
	"errors"
	"fmt"
	"strings"
)

// ErrCut is returned by the replay of a record that is not durable, if the data that it
// refers to is missing. The journal then ends before the record, as before a torn one.
var ErrCut = errors.New("data of the record is missing")

// Damage is a durable part of a journal that cannot be read.
type Damage struct {
	File  string // name of the file
	First LSN    // the first missing record
	Last  LSN    // the last missing record; 0 if unknown
	Cause string
	Err   error // error of opening the file, or nil
}

func (d Damage) String() string {
	records := fmt.Sprintf("records from %d on", d.First)
	switch d.Last {
	case 0:
	case d.First:
		records = fmt.Sprintf("record %d", d.First)
	default:
		records = fmt.Sprintf("records %d to %d", d.First, d.Last)
	}
	return fmt.Sprintf("%s: %s: %s", d.File, records, d.Cause)
}

// DamageError reports the damage of a journal. It wraps ErrCorrupt and the errors of
// opening files.
type DamageError struct{ Damages []Damage }

func (e *DamageError) Error() string {
	var b strings.Builder
	for i, d := range e.Damages {
		if i > 0 {
			b.WriteString("; ")
		}
		if i == 3 {
			fmt.Fprintf(&b, "and %d more", len(e.Damages)-i)
			break
		}
		b.WriteString(d.String())
	}
	return fmt.Sprintf("%v: %s", ErrCorrupt, b.String())
}

func (e *DamageError) Unwrap() []error {
	causes := []error{ErrCorrupt}
	for _, d := range e.Damages {
		if d.Err != nil {
			causes = append(causes, d.Err)
		}
	}
	return causes
}
