package target

import (
	"context"
	"errors"
	"strings"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
	"odx/snapshots"
)

// policiesLimit bounds how long a program that is run after snapshots may hold a handover up.
const policiesLimit = time.Second

// openPolicies begins to take snapshots by policies. Without their records the service serves
// all the same.
func (s *Service) openPolicies(cfg *conf.Config) {
	if s.rescue {
		return
	}
	policies, err := snapshots.Open(context.Background(), cfg, snapshots.Options{
		Store: s.admin, Keeper: protections{s.store}, Record: s.audit.Record, Log: s.log,
	})
	if err != nil {
		s.log.WithError(err).Error("no snapshots are taken by policies until the next start")
		return
	}
	s.policies.Store(policies)
}

// closePolicies ends what policies do; a program that is run after snapshots may finish until
// ctx ends.
func (s *Service) closePolicies(ctx context.Context) {
	if policies := s.policies.Load(); policies != nil {
		policies.Close(ctx)
	}
}

// SnapshotPolicies returns the policies by which snapshots are taken, valid until Stop.
func (s *Service) SnapshotPolicies() (admin.SnapshotPolicies, error) {
	policies := s.policies.Load()
	switch {
	case s.rescue:
		return nil, admin.ErrRescue
	case policies == nil:
		return nil, errNoPolicies
	}
	return policies, nil
}

// errNoPolicies: the records of policies could not be read at the start.
var errNoPolicies = errors.New("no snapshots are taken by policies, because their records could not be read; the log says why")

// policyStatus describes the policies for health and metrics.
func (s *Service) policyStatus() []admin.PolicyStatus {
	policies := s.policies.Load()
	if policies == nil {
		return []admin.PolicyStatus{}
	}
	return policies.Status()
}

// protections implements snapshots.Keeper: what protects a volume or file, such as a replica,
// needs it.
type protections struct{ store *backstore.Store }

// Needed implements snapshots.Keeper.
func (p protections) Needed(name string) (by string, ok bool) {
	v, err := p.store.Volume(name)
	if file, isFile := strings.CutPrefix(name, admin.FilePrefix); isFile {
		v, err = p.store.File(file)
	}
	if err != nil {
		return "", false
	}
	found, ok := v.Protected()
	return found.By, ok
}
