package vhdxfile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/blockdev"
	"odx/vhd/disk"
)

// maxFindings bounds what Check returns.
const maxFindings = 100

// Check returns what is wrong with a file, in words an administrator can act on;
// nil if nothing is. While it runs, the table takes part in the bound of t.
func (t *Tables) Check(ctx context.Context, r blockdev.Reader) ([]disk.Finding, error) {
	var found []disk.Finding
	more := 0
	report := func(s severity, format string, args ...any) error {
		if len(found) == maxFindings {
			more++
			return nil
		}
		found = append(found, disk.Finding{Harmless: s == harmless, Text: fmt.Sprintf(format, args...)})
		return nil
	}
	f, err := t.load(ctx, r, report)
	switch {
	case errors.Is(err, disk.ErrFormat):
		_ = report(fatal, "%s", strings.TrimPrefix(err.Error(), disk.ErrFormat.Error()+": "))
	case err != nil:
		return nil, err
	default:
		defer f.Release()
		if f.headers.log != (disk.GUID{}) {
			_ = report(harmless, "the file was not closed in order: what is in its log (updates: %d) is applied when it is opened for writing", len(f.view.log))
		}
		if n := f.space.unused(f.view.size); n > 0 {
			_ = report(harmless, "%d bytes of the file are used by nothing; compacting the disk gives them back", n)
		}
	}
	if more > 0 {
		found = append(found, disk.Finding{Text: fmt.Sprintf("%d more findings like these", more)})
	}
	return found, nil
}

// Check is Tables.Check with 16 MiB for the table.
func Check(ctx context.Context, r blockdev.Reader) ([]disk.Finding, error) {
	return NewTables(aloneBound).Check(ctx, r)
}
