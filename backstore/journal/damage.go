package journal

import (
	"errors"
	"fmt"
	"strings"
)

// ErrCut is what the replay of a record returns that is not durable, when what
// it points at is not there: the journal ends before it, as it does before a
// record that is torn.
var ErrCut = errors.New("what the record points at is missing")

// Damage is a part of a journal that was durable and cannot be read.
type Damage struct {
	File  string // its name
	First LSN    // the first record that is missing
	Last  LSN    // the last one; 0 when it is not known
	Cause string
	Err   error // why the file cannot be opened, nil where it can
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

// DamageError says what of a journal is damaged. It wraps ErrCorrupt, and why files
// cannot be opened.
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
