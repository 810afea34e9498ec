package vhd

import (
	"context"
	"fmt"
)

// overlapping is a table that can be read although two of its blocks, or a block and
// something else, have bytes of the file in common: one of them is not what was written
// to it, and nothing says which one.
type overlapping interface {
	// Overlap returns an error that says what has the same bytes, or nil.
	Overlap() error
}

// overlap returns why a disk can be read, but its blocks not be given other places.
func (s *source) overlap() error {
	if s.disk == nil {
		return nil
	}
	t, ok := s.disk.Table().(overlapping)
	if !ok {
		return nil
	}
	if err := t.Overlap(); err != nil {
		return fmt.Errorf("file %s: %w", s.name, err)
	}
	return nil
}

// checkOverlap refuses a disk whose blocks overlap: what would be made of it would look
// sound.
func (s *source) checkOverlap() error {
	if err := s.overlap(); err != nil {
		return fmt.Errorf("%w; odx vhd convert to another file copies what can be read of it", err)
	}
	return nil
}

// warnOfOverlap notes what is wrong with a disk, or its parents, that is copied as it reads.
func (j *job) warnOfOverlap(src *source) {
	for _, s := range append([]*source{src}, src.parents...) {
		if err := s.overlap(); err != nil {
			j.warnings = append(j.warnings, fmt.Sprintf("%v; what was made shows the same bytes in both places", err))
		}
	}
}

// mostWarnings bounds what is said of one disk.
const mostWarnings = 5

// warnOfDamage notes what was wrong with a disk as it came, and is not any more with what
// was made of it.
func (j *job) warnOfDamage(ctx context.Context) error {
	f, err := j.manager.store.File(j.request.Source)
	if err != nil {
		return err
	}
	findings, err := j.manager.formats.check(ctx, FormatOf(j.request.Source), f)
	if err != nil {
		return err
	}
	n := 0
	for _, f := range findings {
		if f.Harmless {
			continue
		}
		if n++; n <= mostWarnings {
			j.warnings = append(j.warnings, "the disk that was imported is damaged: "+f.Text)
		}
	}
	if n > mostWarnings {
		j.warnings = append(j.warnings, fmt.Sprintf("%d more findings; see odx vhd check --local", n-mostWarnings))
	}
	return nil
}
