package api

import (
	"context"
	"fmt"

	"odx/backstore"
	"odx/target"
)

// Local is the Administrator of a store that this process has open.
type Local struct{ service *target.Service }

// NewLocal returns the administrator of a service's store.
func NewLocal(s *target.Service) *Local { return &Local{s} }

func (l *Local) Store(ctx context.Context) (Store, error) {
	store := l.service.Store()
	stats, err := store.Stats(ctx)
	if err != nil {
		return Store{}, err
	}
	if stats.Volumes == nil {
		stats.Volumes = []backstore.VolumeStats{} // [] in JSON
	}
	capacity, err := l.service.Capacity()
	if err != nil {
		return Store{}, err
	}
	live, pinned, err := l.service.CountTokens(ctx)
	if err != nil {
		return Store{}, err
	}
	scrub, _, err := store.LastScrub()
	if err != nil {
		return Store{}, err
	}
	damage, more := store.Damage()
	if damage == nil {
		damage = []backstore.Damaged{}
	}
	return Store{
		Scrub: scrub, Damage: damage, MoreDamage: more, Moved: store.Moved(),
		ID:       fmt.Sprintf("%x", store.ID()),
		Stats:    stats,
		Capacity: capacity,
		Tokens:   Tokens{Count: live, PinnedBytes: pinned},
	}, nil
}

func (l *Local) Exclusive(ctx context.Context) (map[string]int64, error) {
	bytes, err := l.service.Store().ExclusiveBytes(ctx)
	if err != nil {
		return nil, err
	}
	visible := make(map[string]int64)
	for _, v := range l.service.Volumes() {
		visible[v.Name] = bytes[v.Name]
	}
	return visible, nil
}

func (l *Local) Check(ctx context.Context) (CheckResult, error) {
	findings, err := l.service.Store().Check(ctx)
	if findings == nil {
		findings = []string{}
	}
	return CheckResult{Sound: err == nil && len(findings) == 0, Findings: findings}, err
}

func (l *Local) Scrub(ctx context.Context, r ScrubRequest, progress func(backstore.ScrubProgress)) (backstore.ScrubResult, error) {
	return l.service.Store().Scrub(ctx, backstore.ScrubOptions{BytesPerSecond: r.BytesPerSecond, Progress: progress})
}

func (l *Local) Clean(ctx context.Context) (CleanResult, error) {
	store := l.service.Store()
	before := store.PhysicalBytes()
	err := store.Clean(ctx)
	after := store.PhysicalBytes()
	return CleanResult{FreedBytes: before - after, PhysicalBytes: after}, err
}

func (l *Local) Volumes(context.Context) ([]Volume, error) { return l.service.Volumes(), nil }

func (l *Local) CreateVolume(ctx context.Context, name string, size int64) (Volume, error) {
	return l.service.CreateVolume(ctx, name, size)
}

func (l *Local) StartVolume(ctx context.Context, name string, size int64) (Volume, error) {
	return l.service.StartVolume(ctx, name, size)
}

func (l *Local) FinishVolume(ctx context.Context, scratch, name string) (Volume, error) {
	return l.service.FinishVolume(ctx, scratch, name)
}

func (l *Local) ResizeVolume(ctx context.Context, name string, size int64) (Volume, error) {
	return l.service.ResizeVolume(ctx, name, size)
}

func (l *Local) DeleteVolume(ctx context.Context, name string) error {
	return l.service.DeleteVolume(ctx, name)
}

func (l *Local) SnapshotVolume(ctx context.Context, src, name string) (Volume, error) {
	return l.service.SnapshotVolume(ctx, src, name)
}

func (l *Local) CloneVolume(ctx context.Context, src, name string) (Volume, error) {
	return l.service.CloneVolume(ctx, src, name)
}
