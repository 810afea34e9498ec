package vhd

import (
	"context"
	"fmt"
)

// overlapping is a table that can be read although two of its blocks, or a block and
// another structure, share bytes of the file: one of them has lost its data, and it is
// unknown which one.
type overlapping interface {
	// Overlap returns an error that names two structures that share bytes, or nil.
	Overlap() error
}

// overlap returns why blocks of a disk must not get other places, nil if they can.
func (s *source) overlap() error {
	if s.disk == nil {
		return nil
	}
	t, ok := s.disk.Table().(overlapping)
	if !ok {
		return nil
	}
	return t.Overlap()
}

// refuseOverlap returns an error for a disk whose blocks overlap: the result would look
// sound.
func (j *job) refuseOverlap(s *source) error {
	err := s.overlap()
	if err == nil {
		return nil
	}
	hint := "odx vhd convert to another file copies what can be read of it"
	if j.request.Operation == Import {
		hint = "import under a name of another format copies what can be read of it"
	}
	return fmt.Errorf("file %s: %w; %s", s.name, err, hint)
}

// warnOfOverlap adds warnings if blocks of a disk, or of its parents, overlap and the disk
// is copied nevertheless.
func (j *job) warnOfOverlap(src *source) {
	for _, s := range append([]*source{src}, src.parents...) {
		if err := s.overlap(); err != nil {
			what := "file " + s.name
			if s == src && j.request.Operation == Import {
				what = imported
			}
			j.warnings = append(j.warnings, fmt.Sprintf("%s: %v; what was made shows the same bytes in both places", what, err))
		}
	}
}

// imported names the source of an Import, whose own name is random.
const imported = "the disk that was imported"

// mostWarnings bounds the warnings of one disk.
const mostWarnings = 5

// warnOfDamage adds a warning for each defect of an imported disk that does not show in
// the result. Overlaps are left to refuseOverlap and warnOfOverlap.
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
		if f.Harmless || f.Overlap {
			continue
		}
		if n++; n <= mostWarnings {
			j.warnings = append(j.warnings, imported+" is damaged: "+f.Text)
		}
	}
	if n > mostWarnings {
		j.warnings = append(j.warnings, fmt.Sprintf("%d more findings; see odx vhd check --local", n-mostWarnings))
	}
	return nil
}
