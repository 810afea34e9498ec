package vhdxfile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/blockdev"
	"odx/vhd/disk"
)

// maxFindings bounds the findings of Check.
const maxFindings = 100

// Check returns the findings about a file, nil if there are none. While it runs, the
// disk's table counts toward the bound of t.
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
			_ = report(harmless, "file was not closed: its log has %d updates, which are applied when it is opened for writing", len(f.view.log))
		}
		if f.headers.logLength == 0 {
			_ = report(harmless, "file has no log and can only be opened read-only; compact the disk to give it one")
		}
		if n := f.space.unused(f.view.size); n > 0 {
			_ = report(harmless, "%d bytes of the file are unused; compact the disk to release them", n)
		}
	}
	if more > 0 {
		found = append(found, disk.Finding{Text: fmt.Sprintf("%d more findings", more)})
	}
	return found, nil
}

// Check is Tables.Check with a bound of 16 MiB.
func Check(ctx context.Context, r blockdev.Reader) ([]disk.Finding, error) {
	return NewTables(defaultBound).Check(ctx, r)
}
