package admin

import (
	"context"

	"odx/vhd"
	"odx/vhd/disk"
)

// Disker administers the virtual disks in the files of a store. Operations map
// payload that is in the store, and move it only where it is not at multiples of 4 KiB.
type Disker interface {
	// Disk describes the virtual disk in a file.
	Disk(ctx context.Context, name string) (Disk, error)
	// CheckDisk checks its structure.
	CheckDisk(ctx context.Context, name string) (DiskCheck, error)
	// ChangeDisk runs an operation. progress, which may be nil, is called while it runs.
	ChangeDisk(ctx context.Context, r DiskRequest, progress func(DiskProgress)) (DiskResult, error)
}

// Descriptions of virtual disks and of operations on them.
type (
	Disk         = vhd.Description
	DiskRequest  = vhd.Request
	DiskProgress = vhd.Progress
	DiskResult   = vhd.Result
)

// DiskCheck is what the check of a virtual disk found.
type DiskCheck struct {
	// Sound: no finding endangers data.
	Sound    bool
	Findings []DiskFinding
}

// DiskFinding is a defect of a virtual disk.
type DiskFinding struct {
	// Harmless: no data is in danger.
	Harmless bool
	Text     string
}

func (s *Store) Disk(ctx context.Context, name string) (Disk, error) {
	m, err := s.DiskManager(ctx)
	if err != nil {
		return Disk{}, err
	}
	return m.Describe(ctx, name)
}

func (s *Store) CheckDisk(ctx context.Context, name string) (DiskCheck, error) {
	m, err := s.DiskManager(ctx)
	if err != nil {
		return DiskCheck{}, err
	}
	findings, err := m.Check(ctx, name)
	if err != nil {
		return DiskCheck{}, err
	}
	return NewDiskCheck(findings), nil
}

// NewDiskCheck returns the result of a check.
func NewDiskCheck(findings []disk.Finding) DiskCheck {
	check := DiskCheck{Sound: true, Findings: []DiskFinding{}}
	for _, f := range findings {
		check.Findings = append(check.Findings, DiskFinding{f.Harmless, f.Text})
		check.Sound = check.Sound && f.Harmless
	}
	return check
}

// ChangeDisk implements Administrator. It ends the tokens of files that the operation
// has replaced or deleted.
func (s *Store) ChangeDisk(ctx context.Context, r DiskRequest, progress func(DiskProgress)) (DiskResult, error) {
	m, err := s.DiskManager(ctx)
	if err != nil {
		return DiskResult{}, err
	}
	result, err := m.Do(ctx, r, progress)
	if err != nil {
		return result, err
	}
	return result, s.endReplaced(ctx)
}

// DiskManager returns the manager of the virtual disks in the store's files.
func (s *Store) DiskManager(ctx context.Context) (*vhd.Manager, error) {
	tokens, err := s.TokenManager(ctx)
	if err != nil {
		return nil, err
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.disks == nil {
		s.disks, err = vhd.New(ctx, vhd.Config{Store: s.store, Engine: tokens.Engine(), Uses: uses{s}, Log: s.log, TableMemory: s.Memory().Tables,
			Operations: int(max(s.Memory().Rest/8/vhd.OperationMemory, 1))})
	}
	return s.disks, err
}

// openedDisks returns the manager of virtual disks, nil if it was not opened.
func (s *Store) openedDisks() *vhd.Manager {
	s.opening.Lock()
	defer s.opening.Unlock()
	return s.disks
}

// uses implements vhd.Uses: it reports which objects are served.
type uses struct{ store *Store }

// CheckFile implements vhd.Uses.
func (u uses) CheckFile(name string) error { return u.store.checkServed(FilePrefix + name) }

// CheckVolume implements vhd.Uses.
func (u uses) CheckVolume(name string) error {
	if err := checkVolumeName(name); err != nil {
		return err
	}
	return u.store.CheckWritable(name)
}
