package snapshots

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"odx/admin"
	"odx/audit"
	"odx/backstore"
	"odx/backstore/vfs"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// server is a store with policies, on a disk in memory.
type server struct {
	*Policies
	store   *backstore.Store
	mu      sync.Mutex // guards the rest
	used    map[string]bool
	needed  map[string]bool
	lines   []audit.Change
	forward time.Duration // by how much the clock is fast
}

// Backstore implements Store.
func (s *server) Backstore() *backstore.Store { return s.store }

// DeleteByID implements Store.
func (s *server) DeleteByID(ctx context.Context, id [16]byte) error {
	v, err := s.store.VolumeByID(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	used := s.used[nameOf(v)]
	s.mu.Unlock()
	if used {
		return fmt.Errorf("%v: %w", v, admin.ErrInUse)
	}
	return errors.Join(s.store.Delete(ctx, v), s.store.Flush(ctx))
}

// Needed implements Keeper.
func (s *server) Needed(name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "replica far", s.needed[name]
}

func (s *server) record(_ context.Context, c audit.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, c)
}

func (s *server) set(forward time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forward = forward
}

func (s *server) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.forward)
}

// openStore opens the store of a disk.
func openStore(t *testing.T, disk vfs.FS) *backstore.Store {
	t.Helper()
	store, err := backstore.Open(context.Background(), backstore.Options{Dir: "/store", FS: disk, Log: logs.Discard(), CacheBytes: 4 << 20, DedupUnit: 16 << 10})
	must.Succeed(t, err)
	return store
}

// serve opens a store with policies; text is the list in YAML.
func serve(t *testing.T, disk vfs.FS, text string) *server {
	t.Helper()
	s := &server{store: openStore(t, disk), used: map[string]bool{}, needed: map[string]bool{}}
	var err error
	s.Policies, err = Open(context.Background(), configure(t, text), Options{Store: s, Keeper: s, Record: s.record, Log: logs.Discard(), Now: s.clock})
	must.Succeed(t, err)
	return s
}

// stop ends what serve began.
func (s *server) stop(t *testing.T) {
	t.Helper()
	s.Policies.Close(context.Background())
	must.Succeed(t, s.store.Close())
}

// configure returns a configuration with policies.
func configure(t *testing.T, text string) *conf.Config {
	t.Helper()
	return configureIn(t, "/nowhere", text)
}

func configureIn(t *testing.T, dir, text string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), []byte("data_dir: /store\nportals: ['127.0.0.1:0']\ntargets: [{name: iqn.2026-11.example.odx:d, luns: [{lun: 0, volume: a, size: 1MiB}]}]\n"+text))
	must.Succeed(t, err)
	return cfg
}

// volume creates a volume.
func (s *server) volume(t *testing.T, name string) *backstore.Volume {
	t.Helper()
	v, err := s.store.CreateVolume(context.Background(), name, 1<<20)
	must.Succeed(t, err)
	return v
}

// names returns the names of the snapshots of policies and of others.
func (s *server) names(t *testing.T) (names []string) {
	t.Helper()
	list, err := s.Snapshots(context.Background(), "")
	must.Succeed(t, err)
	for _, l := range list {
		names = append(names, l.Name)
	}
	return names
}

// status returns the status of the first policy.
func (s *server) first() admin.PolicyStatus { return s.Status()[0] }

func wantNames(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("snapshots %q, want %q", got, want)
	}
}

const quarters = `snapshots: [{name: q, volumes: [a], every: 15m, keep: {last: 3}, names: "%v-%n"}]`

// TestPolicies_Schedule: snapshots are taken when they are due, and the last three stay. In a
// bubble, time begins at midnight.
func TestPolicies_Schedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		s := serve(t, disk, quarters)
		s.volume(t, "a")
		time.Sleep(14 * time.Minute)
		wantNames(t, s.names(t))
		time.Sleep(2 * time.Minute)
		wantNames(t, s.names(t), "a-1")
		time.Sleep(time.Hour)
		wantNames(t, s.names(t), "a-3", "a-4", "a-5")
		st := s.first()
		if want := time.Date(2000, 1, 1, 1, 15, 0, 0, time.UTC); !st.LastSuccess.Equal(want) || !st.Next.Equal(want.Add(15*time.Minute)) || st.Failures != 0 || st.Snapshots != 3 {
			t.Errorf("%+v", st)
		}
		s.mu.Lock()
		if len(s.lines) != 5 || s.lines[4].Subject != "policy q" || fmt.Sprint(s.lines[4].After) != "map[deleted:[a-2] taken:[a-5]]" {
			t.Errorf("audit: %v", s.lines)
		}
		s.mu.Unlock()
		s.stop(t)

		// Runs that were missed are made up for once, by one.
		time.Sleep(5*time.Hour + time.Minute)
		s = serve(t, disk, quarters)
		time.Sleep(time.Second)
		wantNames(t, s.names(t), "a-4", "a-5", "a-6")
		time.Sleep(10 * time.Minute)
		wantNames(t, s.names(t), "a-4", "a-5", "a-6")
		time.Sleep(4 * time.Minute)
		wantNames(t, s.names(t), "a-5", "a-6", "a-7")
		s.stop(t)

		// A start in time makes up for none.
		s = serve(t, disk, quarters)
		time.Sleep(time.Second)
		wantNames(t, s.names(t), "a-5", "a-6", "a-7")
		s.stop(t)
	})
}

// TestPolicies_Clock: a clock that is set forward is one missed run; one that is set back
// stops nothing for longer than the policy's interval.
func TestPolicies_Clock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, vfs.NewMem(), quarters)
		defer s.stop(t)
		s.volume(t, "a")
		time.Sleep(16 * time.Minute)
		wantNames(t, s.names(t), "a-1")
		s.set(365 * 24 * time.Hour)
		time.Sleep(2 * time.Minute)
		wantNames(t, s.names(t), "a-1", "a-2")
		s.set(0) // it is 00:18
		time.Sleep(2 * time.Minute)
		wantNames(t, s.names(t), "a-1", "a-2")
		time.Sleep(10*time.Minute + time.Second) // 00:30
		wantNames(t, s.names(t), "a-1", "a-2", "a-3")
		time.Sleep(15 * time.Minute) // the one of the far future goes in its turn
		wantNames(t, s.names(t), "a-2", "a-3", "a-4")
		time.Sleep(15 * time.Minute)
		wantNames(t, s.names(t), "a-3", "a-4", "a-5")
	})
}

// TestPolicies_SummerTime: a night that has no 2:30, and one that has it twice, have one run.
func TestPolicies_SummerTime(t *testing.T) {
	const nightly = `snapshots: [{name: n, volumes: [a], at: ["30 2 * * *"], time_zone: Europe/Berlin, names: "%v-%n"}]`
	for begin, want := range map[string]int{"2026-03-28T12:00:00Z": 2, "2026-10-24T12:00:00Z": 2} {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, vfs.NewMem(), "")
			defer s.stop(t)
			s.volume(t, "a")
			at, err := time.Parse(time.RFC3339, begin)
			must.Succeed(t, err)
			s.set(time.Until(at))
			s.Configure(configure(t, nightly))
			time.Sleep(40 * time.Hour)
			if got := s.names(t); len(got) != want {
				t.Errorf("from %s in 40 hours: %v", begin, got)
			}
		})
	}
}

// TestPolicies_Failures: a run that fails is tried again, after times that grow, and not more
// often than once at a time; what fails is known over a restart.
func TestPolicies_Failures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const daily = `snapshots: [{name: d, volumes: [a, gone], every: 24h, names: "%v-%n", max_snapshots: 100}]`
		disk := vfs.NewMem()
		s := serve(t, disk, daily)
		s.volume(t, "a")
		time.Sleep(24*time.Hour + 16*time.Minute) // at 0, 1, 3, 7 and 15 minutes
		st := s.first()
		if st.Failures != 5 || !strings.Contains(st.LastError, "gone") || !st.LastSuccess.IsZero() {
			t.Errorf("%+v", st)
		}
		wantNames(t, s.names(t), "a-1", "a-2", "a-3", "a-4", "a-5") // what can be taken is
		s.stop(t)
		s = serve(t, disk, daily)
		if now := s.first(); now.Failures != st.Failures || now.LastError != st.LastError {
			t.Errorf("after a restart %+v", now)
		}
		s.volume(t, "gone")
		time.Sleep(2 * time.Hour)
		if st := s.first(); st.Failures != 0 || st.LastError != "" || st.LastSuccess.IsZero() {
			t.Errorf("after a success %+v", st)
		}
		s.stop(t)
	})
}

// TestPolicies_Bounds: a run that would exceed a bound takes nothing and says so, and deletes
// no more than the policy says.
func TestPolicies_Bounds(t *testing.T) {
	ctx := context.Background()
	for name, text := range map[string]string{
		"of the policy": `snapshots: [{name: p, volumes: [a], every: 24h, names: "%v-%n", max_snapshots: 2}]`,
		"of the server": `{limits: {snapshots: 2}, snapshots: [{name: p, volumes: [a], every: 24h, names: "%v-%n"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, vfs.NewMem(), strings.NewReplacer("{limits: {snapshots: 2}, snapshots: [", "limits: {snapshots: 2}\nsnapshots: [", "]}", "]").Replace(text))
			defer s.stop(t)
			s.volume(t, "a")
			for range 2 {
				done, err := s.RunPolicy(ctx, "p")
				must.Succeed(t, err)
				if done.Problem != "" {
					t.Error(done.Problem)
				}
			}
			done, err := s.RunPolicy(ctx, "p")
			if err != nil || !strings.Contains(done.Problem, "snapshots is 2") || len(done.Taken)+len(done.Deleted) > 0 {
				t.Errorf("%+v, %v", done, err)
			}
			wantNames(t, s.names(t), "a-1", "a-2")
			// With less to keep there is room.
			s.Configure(configure(t, strings.Replace(`snapshots: [{name: p, volumes: [a], every: 24h, names: "%v-%n", max_snapshots: 2, keep: {last: 1}}]`, "", "", 1)))
			done, err = s.RunPolicy(ctx, "p")
			if err != nil || done.Problem != "" {
				t.Errorf("%+v, %v", done, err)
			}
			wantNames(t, s.names(t), "a-4")
		})
	}
}

// TestPolicies_Ownership: a snapshot is a policy's by its record, whatever it is called.
func TestPolicies_Ownership(t *testing.T) {
	ctx := context.Background()
	const text = `snapshots: [{name: p, volumes: [a, "web*", "file:img/*"], every: 24h, keep: {last: 1}, names: "%v-p-%n"}]`
	disk := vfs.NewMem()
	s := serve(t, disk, text)
	s.volume(t, "a")
	s.volume(t, "web1")
	s.volume(t, "other")
	_, err := s.store.CreateFile(ctx, "img/base.vhdx")
	must.Succeed(t, err)
	_, err = s.store.CreateFile(ctx, "outside.img")
	must.Succeed(t, err)
	// A user's snapshots have the names that the policy would give: it gives others, and
	// never deletes these.
	for _, name := range []string{"a-p-1", "a-p-2", "web1-p-9"} {
		_, err = s.store.SnapshotVolume(ctx, "a", name)
		must.Succeed(t, err)
	}
	run := func(want ...string) {
		t.Helper()
		done, err := s.RunPolicy(ctx, "p")
		must.Succeed(t, err)
		if done.Problem != "" {
			t.Error(done.Problem)
		}
		wantNames(t, done.Taken, want...)
	}
	run("a-p-1.2", "web1-p-1", "file:img/base-p-1.vhdx")
	must.Succeed(t, s.store.RenameVolume(ctx, "a-p-1.2", "mine"))
	run("a-p-2.2", "web1-p-2", "file:img/base-p-2.vhdx")
	// The renamed one was the policy's.
	wantNames(t, s.names(t), "a-p-1", "a-p-2", "web1-p-9", "a-p-2.2", "web1-p-2", "file:img/base-p-2.vhdx")
	// A user takes the name of a snapshot that was renamed.
	must.Succeed(t, s.store.RenameVolume(ctx, "a-p-2.2", "kept"))
	_, err = s.store.SnapshotVolume(ctx, "a", "a-p-2.2")
	must.Succeed(t, err)
	run("a-p-3", "web1-p-3", "file:img/base-p-3.vhdx")
	wantNames(t, s.names(t), "a-p-1", "a-p-2", "web1-p-9", "a-p-2.2", "a-p-3", "web1-p-3", "file:img/base-p-3.vhdx")
	// A policy that leaves takes its snapshots with it nowhere, and finds them when it is
	// back.
	s.Configure(configure(t, ""))
	if _, err := s.RunPolicy(ctx, "p"); !errors.Is(err, admin.ErrNoPolicy) {
		t.Errorf("a policy that has left: %v", err)
	}
	if st := s.Status(); len(st) != 1 || st[0].Configured || st[0].Snapshots != 3 {
		t.Errorf("%+v", st)
	}
	s.stop(t)
	s = serve(t, disk, "")
	wantNames(t, s.names(t), "a-p-1", "a-p-2", "web1-p-9", "a-p-2.2", "a-p-3", "web1-p-3", "file:img/base-p-3.vhdx")
	s.Configure(configure(t, text))
	run("a-p-4", "web1-p-4", "file:img/base-p-4.vhdx")
	wantNames(t, s.names(t), "a-p-1", "a-p-2", "web1-p-9", "a-p-2.2", "a-p-4", "web1-p-4", "file:img/base-p-4.vhdx")
	s.stop(t)
}

// TestPolicies_Needed: what a replica or the configuration needs stays, and goes when it does
// not any more.
func TestPolicies_Needed(t *testing.T) {
	ctx := context.Background()
	s := serve(t, vfs.NewMem(), `snapshots: [{name: p, volumes: [a], every: 24h, keep: {last: 1}, names: "%v-%n"}]`)
	defer s.stop(t)
	s.volume(t, "a")
	s.mu.Lock()
	s.needed["a-1"], s.used["a-2"] = true, true
	s.mu.Unlock()
	for range 4 {
		_, err := s.RunPolicy(ctx, "p")
		must.Succeed(t, err)
	}
	wantNames(t, s.names(t), "a-1", "a-2", "a-4")
	dry, err := s.PrunePolicy(ctx, "p", true)
	must.Succeed(t, err)
	if len(dry) != 3 || dry[0].NeededBy != "replica far" || dry[0].Deleted || len(dry[2].Reasons) != 1 {
		t.Errorf("%+v", dry)
	}
	s.mu.Lock()
	delete(s.needed, "a-1")
	s.mu.Unlock()
	dry, err = s.PrunePolicy(ctx, "p", true)
	must.Succeed(t, err)
	if dry[0].NeededBy != "" || len(dry[0].Reasons) > 0 || dry[0].Deleted {
		t.Errorf("%+v", dry[0])
	}
	wantNames(t, s.names(t), "a-1", "a-2", "a-4")
	pruned, err := s.PrunePolicy(ctx, "p", false)
	must.Succeed(t, err)
	if !pruned[0].Deleted || pruned[1].NeededBy == "" || pruned[1].Deleted {
		t.Errorf("%+v", pruned)
	}
	wantNames(t, s.names(t), "a-2", "a-4")
}

// TestPolicies_Pause: a policy that is paused runs when it is asked to.
func TestPolicies_Pause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const paused = `snapshots: [{name: q, volumes: [a], every: 15m, names: "%v-%n", pause: true}]`
		s := serve(t, vfs.NewMem(), paused)
		defer s.stop(t)
		s.volume(t, "a")
		time.Sleep(time.Hour)
		wantNames(t, s.names(t))
		_, err := s.RunPolicy(t.Context(), "q")
		must.Succeed(t, err)
		wantNames(t, s.names(t), "a-1")
		if st := s.first(); !st.Paused || !st.Next.IsZero() {
			t.Errorf("%+v", st)
		}
		time.Sleep(time.Hour)
		s.Configure(configure(t, strings.Replace(paused, ", pause: true", "", 1)))
		time.Sleep(time.Second) // it has missed some, and makes up for them once
		wantNames(t, s.names(t), "a-1", "a-2")
	})
}

// TestPolicies_Together: a group lacks no member, and is not taken without one.
func TestPolicies_Together(t *testing.T) {
	ctx := context.Background()
	s := serve(t, vfs.NewMem(), `snapshots: [{name: g, volumes: [a, b], every: 24h, names: "%v-%n", together: true}]`)
	defer s.stop(t)
	s.volume(t, "a")
	done, err := s.RunPolicy(ctx, "g")
	if err != nil || len(done.Taken) > 0 || !strings.Contains(done.Problem, "b: ") {
		t.Errorf("%+v, %v", done, err)
	}
	s.volume(t, "b")
	done, err = s.RunPolicy(ctx, "g")
	if err != nil || done.Problem != "" {
		t.Errorf("%+v, %v", done, err)
	}
	wantNames(t, s.names(t), "a-2", "b-2")
}

// TestPolicies_Interrupted: a policy whose process ended in the middle of a group has none of
// it, and runs again at once.
func TestPolicies_Interrupted(t *testing.T) {
	ctx := context.Background()
	const text = `snapshots: [{name: g, volumes: [a, b], every: 24h, names: "%v-%n", together: true}]`
	disk := vfs.NewMem()
	s := serve(t, disk, text)
	v := s.volume(t, "a")
	s.volume(t, "b")
	s.Policies.Close(ctx) // it does nothing more
	st, _ := s.ledger.state("g")
	st.Runs, st.Underway = 1, &underway{Run: 1, Began: time.Now(), Together: 2}
	must.Succeed(t, s.ledger.setState(ctx, "g", st))
	must.Succeed(t, s.ledger.take(ctx, []request{{v, "a-1", taken{ID: identity{1}, Policy: "g", Of: v.ID(), Time: time.Now(), Run: 1}}}))
	wantNames(t, s.names(t), "a-1")
	s.stop(t)
	s = serve(t, disk, text)
	defer s.stop(t)
	wantNames(t, s.names(t))
	done, err := s.RunPolicy(ctx, "g")
	if err != nil || done.Problem != "" || done.Run != 2 {
		t.Errorf("%+v, %v", done, err)
	}
}
