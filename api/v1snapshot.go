package api

import (
	"odx/admin"
	v1 "odx/api/v1"
)

// SnapshotV1 returns the JSON of a snapshot.
func SnapshotV1(s admin.Snapshot) v1.Snapshot { return v1.Snapshot(s) }

// SnapshotsV1 returns the JSON of snapshots.
func SnapshotsV1(list []admin.Snapshot) []v1.Snapshot { return some(each(SnapshotV1)(list)) }

func snapshotOf(s v1.Snapshot) admin.Snapshot { return admin.Snapshot(s) }

// SnapshotPolicyV1 returns the JSON of a policy of snapshots.
func SnapshotPolicyV1(p admin.PolicyStatus) v1.SnapshotPolicy { return v1.SnapshotPolicy(p) }

// SnapshotPoliciesV1 returns the JSON of policies of snapshots.
func SnapshotPoliciesV1(list []admin.PolicyStatus) []v1.SnapshotPolicy {
	return some(each(SnapshotPolicyV1)(list))
}

func policyStatusOf(p v1.SnapshotPolicy) admin.PolicyStatus { return admin.PolicyStatus(p) }

// SnapshotRunV1 returns the JSON of a run of a policy.
func SnapshotRunV1(r admin.PolicyRun) v1.SnapshotRun {
	w := v1.SnapshotRun(r)
	w.Taken, w.Deleted = some(w.Taken), some(w.Deleted)
	return w
}

func policyRunOf(r v1.SnapshotRun) admin.PolicyRun { return admin.PolicyRun(r) }

// PrunedSnapshotV1 returns the JSON of what becomes of a snapshot.
func PrunedSnapshotV1(p admin.PrunedSnapshot) v1.PrunedSnapshot {
	return v1.PrunedSnapshot{Snapshot: SnapshotV1(p.Snapshot), Reasons: some(p.Reasons), NeededBy: p.NeededBy, Deleted: p.Deleted}
}

// PrunedSnapshotsV1 returns the JSON of what becomes of snapshots.
func PrunedSnapshotsV1(list []admin.PrunedSnapshot) []v1.PrunedSnapshot {
	return some(each(PrunedSnapshotV1)(list))
}

func prunedSnapshotOf(p v1.PrunedSnapshot) admin.PrunedSnapshot {
	return admin.PrunedSnapshot{Snapshot: snapshotOf(p.Snapshot), Reasons: p.Reasons, NeededBy: p.NeededBy, Deleted: p.Deleted}
}
