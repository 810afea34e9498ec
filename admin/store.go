package admin

import (
	"context"
	"fmt"

	"odx/backstore"
)

// StoreInfo describes an extent store: its figures, and its tokens.
type StoreInfo struct {
	// ID is the random number of the store, in hexadecimal.
	ID string
	backstore.Stats
	Capacity
	Tokens Tokens
	// Scrub is the result of the last scrub; its Ended is zero if there was none.
	Scrub backstore.LastScrub
	// Damage lists what was found damaged since the store was opened, at most 100
	// entries; MoreDamage counts the rest.
	Damage     []backstore.Damaged
	MoreDamage int
	// Moved: the store is not where its superblock says; it may be a copy.
	Moved bool
}

// Tokens summarizes the live tokens.
type Tokens struct {
	Count int
	// PinnedBytes is what they represent, together.
	PinnedBytes int64
}

// CheckResult is the result of a check.
type CheckResult struct {
	Sound bool
	// Findings are in words; the last one counts those beyond 1000.
	Findings []string
}

// ScrubRequest are the arguments of Scrub.
type ScrubRequest struct {
	// BytesPerSecond bounds what is read; 0: as fast as the disk allows.
	BytesPerSecond int64
}

// CleanResult is the result of Clean.
type CleanResult struct {
	// FreedBytes is how much shorter the segments are. Concurrent writes
	// make it smaller, below zero too.
	FreedBytes int64
	// PhysicalBytes is the length of the segments afterwards.
	PhysicalBytes int64
}

// Capacity is the capacity of a store, in bytes.
type Capacity struct {
	// FreeBytes is how much new data fits.
	FreeBytes int64
	// HostFreeBytes is what the file system of the store has free. Its excess over
	// FreeBytes is reserved for opening and cleaning, or is beyond the configured
	// capacity.
	HostFreeBytes int64
	// ProvisionedBytes is what all volumes and files could grow to, together.
	ProvisionedBytes int64
	// WarnBytes is the use at which initiators are warned, 0 if they never are. Like
	// the use, it includes what other users of the file system take from the store.
	WarnBytes int64
}

// StoreInfo implements Administrator.
func (s *Store) StoreInfo(ctx context.Context) (StoreInfo, error) {
	stats, err := s.store.Stats(ctx)
	if err != nil {
		return StoreInfo{}, err
	}
	if stats.Volumes == nil {
		stats.Volumes = []backstore.VolumeStats{} // [] in JSON
	}
	capacity, err := s.Capacity()
	if err != nil {
		return StoreInfo{}, err
	}
	live, pinned, err := s.countTokens(ctx)
	if err != nil {
		return StoreInfo{}, err
	}
	scrub, _, err := s.store.LastScrub()
	if err != nil {
		return StoreInfo{}, err
	}
	damage, more := s.store.Damage()
	if damage == nil {
		damage = []backstore.Damaged{}
	}
	return StoreInfo{
		Scrub: scrub, Damage: damage, MoreDamage: more, Moved: s.store.Moved(),
		ID:       fmt.Sprintf("%x", s.store.ID()),
		Stats:    stats,
		Capacity: capacity,
		Tokens:   Tokens{Count: live, PinnedBytes: pinned},
	}, nil
}

// Exclusive implements Administrator.
func (s *Store) Exclusive(ctx context.Context) (map[string]int64, error) {
	volumes, files, err := s.store.ExclusiveBytes(ctx)
	if err != nil {
		return nil, err
	}
	visible := make(map[string]int64)
	for _, v := range s.volumes() {
		visible[v.Name] = volumes[v.Name]
	}
	for _, f := range s.files() {
		visible[FilePrefix+f.Name] = files[f.Name]
	}
	return visible, nil
}

// Check implements Administrator.
func (s *Store) Check(ctx context.Context) (CheckResult, error) {
	findings, err := s.store.Check(ctx)
	if err == nil {
		var unheld []string
		unheld, err = s.unheld(ctx)
		findings = append(findings, unheld...)
	}
	if findings == nil {
		findings = []string{}
	}
	return CheckResult{Sound: err == nil && len(findings) == 0, Findings: findings}, err
}

// Scrub implements Administrator.
func (s *Store) Scrub(ctx context.Context, r ScrubRequest, progress func(backstore.ScrubProgress)) (backstore.ScrubResult, error) {
	return s.store.Scrub(ctx, backstore.ScrubOptions{BytesPerSecond: r.BytesPerSecond, Progress: progress})
}

// Clean implements Administrator.
func (s *Store) Clean(ctx context.Context) (CleanResult, error) {
	before := s.store.PhysicalBytes()
	err := s.store.Clean(ctx)
	after := s.store.PhysicalBytes()
	return CleanResult{FreedBytes: before - after, PhysicalBytes: after}, err
}

// Capacity measures the capacity of the store.
func (s *Store) Capacity() (Capacity, error) {
	free, err := s.store.FreeBytes()
	if err != nil {
		return Capacity{}, err
	}
	host, err := s.store.HostFreeBytes()
	if err != nil {
		return Capacity{}, err
	}
	c := Capacity{FreeBytes: free, HostFreeBytes: host}
	for _, v := range s.volumes() {
		c.ProvisionedBytes += v.SizeBytes
	}
	for _, f := range s.files() {
		c.ProvisionedBytes += f.SizeBytes
	}
	if s.server != nil {
		c.WarnBytes = s.server.WarnBytes()
	} else {
		c.WarnBytes = int64(float64(s.store.LiveBytes()+free) * float64(s.cfg().Store.SoftThreshold) / 100)
	}
	return c, nil
}
