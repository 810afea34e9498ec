package api

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"odx/admin"
)

// modelPolicies has one policy, hourly.
type modelPolicies struct{}

var modelTime = time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)

func (modelPolicies) known(policy string) error {
	switch policy {
	case "hourly":
		return nil
	case "busy":
		return fmt.Errorf("policy %s: %w", policy, admin.ErrPolicyBusy)
	}
	return fmt.Errorf("policy %s: %w", policy, admin.ErrNoPolicy)
}

func (modelPolicies) Snapshots(_ context.Context, volume string) ([]admin.Snapshot, error) {
	list := []admin.Snapshot{}
	for _, of := range []string{"v", "file:w"} {
		if volume == "" || volume == of {
			list = append(list, admin.Snapshot{Name: of + "-hourly-1", ID: "11111111111111111111111111111111", Volume: of, Policy: "hourly", Run: 1, Time: modelTime, SizeBytes: 4096})
		}
	}
	return list, nil
}

func (modelPolicies) SnapshotPolicies(context.Context) ([]admin.PolicyStatus, error) {
	return []admin.PolicyStatus{
		{Policy: "hourly", Configured: true, Schedule: "every 1h0m0s", Next: modelTime.Add(time.Hour), LastSuccess: modelTime, Snapshots: 1},
		{Policy: "gone", Failures: 2, LastError: "why", Snapshots: 3},
	}, nil
}

func (m modelPolicies) RunPolicy(_ context.Context, policy string) (admin.PolicyRun, error) {
	return admin.PolicyRun{Policy: "hourly", Run: 2, Time: modelTime, Taken: []string{"v-hourly-2"}, Deleted: []string{}}, m.known(policy)
}

func (m modelPolicies) PrunePolicy(ctx context.Context, policy string, dryRun bool) ([]admin.PrunedSnapshot, error) {
	list, _ := m.Snapshots(ctx, "")
	return []admin.PrunedSnapshot{
		{Snapshot: list[0], Reasons: []string{}, Deleted: !dryRun}, {Snapshot: list[1], Reasons: []string{"last", "daily"}}, {Snapshot: list[1], Reasons: []string{}, NeededBy: "a replica"},
	}, m.known(policy)
}

// TestClient_SnapshotPolicies: what a client gets is what the server has.
func TestClient_SnapshotPolicies(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s := serving(t, open(t, dir).Admin())
	model := modelPolicies{}
	s.Snapshots = func() (admin.SnapshotPolicies, error) { return model, nil }
	client := serveSocket(t, dir, NewServer(s))
	same := func(what string, got any, err error, want any, wantErr error) {
		t.Helper()
		if err != nil || wantErr != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	for _, volume := range []string{"", "v", "file:w", "none"} {
		got, err := client.Snapshots(ctx, volume)
		want, wantErr := model.Snapshots(ctx, volume)
		same("snapshots of "+volume, got, err, want, wantErr)
	}
	status, err := client.SnapshotPolicies(ctx)
	wantStatus, wantErr := model.SnapshotPolicies(ctx)
	same("policies", status, err, wantStatus, wantErr)
	run, err := client.RunPolicy(ctx, "hourly")
	wantRun, wantErr := model.RunPolicy(ctx, "hourly")
	same("run", run, err, wantRun, wantErr)
	for _, dry := range []bool{true, false} {
		pruned, err := client.PrunePolicy(ctx, "hourly", dry)
		want, wantErr := model.PrunePolicy(ctx, "hourly", dry)
		same("prune", pruned, err, want, wantErr)
	}
	if _, err := client.RunPolicy(ctx, "no/ne"); !errors.Is(err, admin.ErrNoPolicy) {
		t.Errorf("an unknown policy: %v", err)
	}
	if _, err := client.PrunePolicy(ctx, "busy", false); !errors.Is(err, admin.ErrPolicyBusy) {
		t.Errorf("a policy that runs: %v", err)
	}
}

// TestServer_NoPolicies: a server without policies says so.
func TestServer_NoPolicies(t *testing.T) {
	dir := t.TempDir()
	s := serving(t, open(t, dir).Admin())
	s.Snapshots = func() (admin.SnapshotPolicies, error) { return nil, admin.ErrRescue }
	client := serveSocket(t, dir, NewServer(s))
	if _, err := client.SnapshotPolicies(t.Context()); !errors.Is(err, admin.ErrRescue) {
		t.Errorf("a rescue: %v", err)
	}
}
