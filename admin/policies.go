package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"odx/backstore"
)

var (
	// ErrNoPolicy: the configuration has no policy of snapshots of that name.
	ErrNoPolicy = errors.New("no such policy of snapshots")
	// ErrPolicyBusy: a run of the policy is under way.
	ErrPolicyBusy = errors.New("the policy runs already")
)

// SnapshotPolicies are the policies by which a server takes snapshots. Errors are
// ErrNotRunning where no server is, ErrNoPolicy and ErrPolicyBusy.
type SnapshotPolicies interface {
	// Snapshots describes the snapshots of a volume, or with FilePrefix of a file, of all
	// for "": those of policies, and other read-only volumes. The oldest of each volume
	// comes first.
	Snapshots(ctx context.Context, volume string) ([]Snapshot, error)
	// SnapshotPolicies describes the policies in the order of the configuration, and those
	// that are not in it any more and have snapshots.
	SnapshotPolicies(ctx context.Context) ([]PolicyStatus, error)
	// RunPolicy takes the snapshots of a policy now, also of one that is paused, and
	// deletes those that it does not keep. An error of the run is in the result.
	RunPolicy(ctx context.Context, policy string) (PolicyRun, error)
	// PrunePolicy deletes the snapshots that a policy does not keep; with dryRun it says
	// which those are.
	PrunePolicy(ctx context.Context, policy string, dryRun bool) ([]PrunedSnapshot, error)
}

// Snapshot describes a snapshot.
type Snapshot struct {
	// Name is that of a volume, or with FilePrefix of a file.
	Name string
	// ID is its permanent number in hexadecimal.
	ID string
	// Volume is what it is a snapshot of; "" if that was deleted.
	Volume string
	// Policy is the policy that took it; "" for none. Run is the number of the run.
	Policy string
	Run    uint64
	// Time is when it was taken.
	Time      time.Time
	SizeBytes int64
}

// PolicyStatus describes a policy of snapshots.
type PolicyStatus struct {
	Policy string
	// Configured: it is in the configuration. Without it, the policy takes and deletes none.
	Configured, Paused, Running bool
	// Schedule is when it runs, in words of the configuration, Next when the next time is;
	// zero for none.
	Schedule string
	Next     time.Time
	// LastSuccess is when the last run began that did all that it was to; zero for none.
	LastSuccess time.Time
	// Failures counts the runs since then, and LastError is why the last of them failed.
	Failures  int
	LastError string
	// Snapshots is how many there are.
	Snapshots int
}

// PolicyRun describes a run of a policy.
type PolicyRun struct {
	Policy string
	Run    uint64
	Time   time.Time
	// Taken and Deleted are names of snapshots.
	Taken, Deleted []string
	// Problem is why the run failed, "" if it did not. It can have taken some snapshots.
	Problem string
}

// PrunedSnapshot is what becomes of a snapshot when a policy is pruned.
type PrunedSnapshot struct {
	Snapshot
	// Reasons are the keys of keep by which it stays: last, hourly, daily, weekly,
	// monthly, yearly, within; or all. If there are none, it goes.
	Reasons []string
	// NeededBy is why it stays nevertheless: what uses it, or an error; "" for nothing.
	NeededBy string
	// Deleted: it is gone.
	Deleted bool
}

// DeleteByID deletes the volume or file with an identity, whatever its name is by now, as
// DeleteVolume and DeleteFile do: ErrInUse if the configuration uses it.
func (s *Store) DeleteByID(ctx context.Context, id [16]byte) error {
	v, err := s.store.VolumeByID(id)
	if err != nil {
		return err
	}
	if v.IsFile() {
		return s.deleteFileObject(ctx, v)
	}
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	name := v.Name()
	if err := errors.Join(s.checkNoLUN(volumeMedium(name)), s.checkServed(name)); err != nil {
		return err
	}
	if err := s.store.Delete(ctx, v); err != nil {
		return err
	}
	if err := errors.Join(forgetUnit(ctx, s.store, id), s.endOrphans(ctx)); err != nil {
		return err
	}
	s.log.WithField("volume", name).Info("volume deleted")
	return s.store.Flush(ctx)
}

// deleteFileObject deletes a file, unless it is in use or the parent of differencing disks.
func (s *Store) deleteFileObject(ctx context.Context, v *backstore.Volume) error {
	disks, err := s.DiskManager(ctx)
	if err != nil {
		return err
	}
	name := v.Name()
	end, err := s.BeginWrite(FilePrefix + name)
	if err != nil {
		return err
	}
	defer end()
	if now, err := s.store.File(name); err != nil || now != v {
		return fmt.Errorf("file %s: %w: it was renamed or deleted", name, backstore.ErrNotFound)
	}
	if err := errors.Join(s.checkDisposable(name), disks.CheckNoChildren(ctx, name)); err != nil {
		return err
	}
	if err := s.store.Delete(ctx, v); err != nil {
		return err
	}
	if err := errors.Join(forgetUnit(ctx, s.store, FileUnitID(s.store, name)), s.endOrphans(ctx)); err != nil {
		return err
	}
	s.log.WithField("file", name).Info("file deleted")
	return s.store.Flush(ctx)
}

// IsHidden reports whether a name is that of an internal volume or file, such as one that a
// copy has not finished.
func IsHidden(name string) bool {
	return strings.HasPrefix(strings.TrimPrefix(name, FilePrefix), hiddenPrefix)
}

// failuresReported is how many runs of a policy have to fail one after the other until that is
// a condition: the first one is tried again.
const failuresReported = 2

// failingPolicies is the condition snapshots_failing.
func failingPolicies(s *Status) string {
	var names []string
	reason := ""
	for i := range s.Vitals.Policies {
		if p := &s.Vitals.Policies[i]; p.Configured && p.Failures >= failuresReported {
			names = append(names, p.Policy)
			if reason == "" {
				reason = p.LastError
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("policies take no snapshots, or not all of them; odx snapshot policies has the reasons: %s; the first one: %s", strings.Join(names, ", "), reason)
}
