package snapshots

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"odx/backstore"
	"odx/backstore/vfs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// crashes makes copies of a disk as a power cut, or the end of the process, would leave it,
// before operations that change it, until the returned function is called.
func crashes(disk *vfs.Mem, rng *rand.Rand) (stop func() []*vfs.Mem) {
	var mu sync.Mutex
	var cuts []*vfs.Mem
	every := sample.Size(12, 3, 1)
	rng = rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
	disk.SetHook(func(kind vfs.OpKind, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if kind.Changes() && rng.IntN(every) == 0 {
			if rng.IntN(2) == 0 {
				cuts = append(cuts, disk.CrashClone(rng))
			} else {
				cuts = append(cuts, disk.ProcessClone())
			}
		}
		return nil
	})
	return func() []*vfs.Mem {
		disk.SetHook(nil)
		mu.Lock()
		defer mu.Unlock()
		return cuts
	}
}

// TestPolicies_Crash ends the process, or cuts the power, before changes of the disk (each
// with -all) while a policy takes snapshots and deletes others. After each, the next process
// finds: no snapshot that is not known as the policy's, whole groups alone, the latest group
// that was reported, a user's snapshot, and a sound store; it runs again.
func TestPolicies_Crash(t *testing.T) {
	ctx := context.Background()
	const text = `snapshots: [{name: g, volumes: [a, b, c], every: 24h, names: "%v-%n", together: true, keep: {last: 2}}]`
	made := 0
	for seed := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 5))
		disk := vfs.NewMem()
		s := serve(t, disk, text)
		for i, name := range []string{"a", "b", "c"} {
			v := s.volume(t, name)
			must.Succeed(t, v.WriteAt(ctx, make([]byte, 4096*(i+1)), 0))
		}
		_, err := s.store.SnapshotVolume(ctx, "a", "a-77") // a user's
		must.Succeed(t, err)
		for round := range 4 {
			stop := crashes(disk, rng)
			done, err := s.RunPolicy(ctx, "g")
			must.Succeed(t, err)
			if done.Problem != "" {
				t.Fatal(done.Problem)
			}
			cuts := stop()
			made += len(cuts)
			// What is reported is durable.
			cuts = append(cuts, disk.CrashClone(rng))
			for i, cut := range cuts {
				reported := round
				if i == len(cuts)-1 {
					reported = round + 1
				}
				checkCrashed(t, fmt.Sprintf("seed %d, round %d, crash %d of %d", seed, round, i, len(cuts)), cut, text, reported)
			}
		}
		s.stop(t)
	}
	if made == 0 {
		t.Error("there was no crash")
	}
	t.Logf("%d crashes", made)
}

// checkCrashed opens a disk after a crash; reported is the number of the last run that was
// reported.
func checkCrashed(t *testing.T, when string, disk *vfs.Mem, text string, reported int) {
	t.Helper()
	ctx := context.Background()
	s := serve(t, disk, text)
	defer s.stop(t)
	list, err := s.Snapshots(ctx, "")
	must.Succeed(t, err)
	groups := map[uint64]int{}
	user := 0
	for _, l := range list {
		switch {
		case l.Policy == "g":
			groups[l.Run]++
		case l.Name == "a-77":
			user++
		default:
			t.Errorf("%s: %s is no policy's", when, l.Name)
		}
	}
	for run, n := range groups {
		// Of those that were being deleted some may be left.
		if n != 3 && int(run) > reported-1 {
			t.Errorf("%s: %d of the group %d", when, n, run)
		}
	}
	if user != 1 || reported > 0 && groups[uint64(reported)] != 3 {
		t.Errorf("%s: groups %v, %d of the user", when, groups, user)
	}
	for _, l := range s.ledger.of("") {
		if s.ledger.objects()[l.ID] == nil {
			t.Errorf("%s: the record of run %d has no snapshot", when, l.Run)
		}
	}
	done, err := s.RunPolicy(ctx, "g")
	must.Succeed(t, err)
	if done.Problem != "" || len(done.Taken) != 3 || int(done.Run) <= reported {
		t.Errorf("%s: the next run: %+v", when, done)
	}
	if left, err := s.Snapshots(ctx, ""); err != nil || len(left) != min(len(groups)+1, 2)*3+1 {
		t.Errorf("%s: %d snapshots after the next run, %v", when, len(left), err)
	}
	if findings, err := s.store.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("%s: check: %v %v", when, findings, err)
	}
}

// TestPolicies_DiskErrors: while the disk has no room for a record nothing is taken, nothing
// is deleted that the policy keeps, and it goes on when there is room.
func TestPolicies_DiskErrors(t *testing.T) {
	ctx := context.Background()
	disk := vfs.NewMem()
	s := serve(t, disk, `snapshots: [{name: p, volumes: [a], every: 24h, names: "%v-%n", max_snapshots: 5000}]`)
	v := s.volume(t, "a")
	must.Succeed(t, v.WriteAt(ctx, make([]byte, 4096), 0))
	_, err := s.RunPolicy(ctx, "p")
	must.Succeed(t, err)
	full := errors.New("no space left on device")
	disk.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind.Changes() {
			return full
		}
		return nil
	})
	done, err := s.RunPolicy(ctx, "p")
	if err != nil || done.Problem == "" || len(done.Deleted) > 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if st := s.first(); st.Failures != 1 || st.LastError == "" {
		t.Errorf("%+v", st)
	}
	disk.SetHook(nil)
	s.Policies.Close(ctx)
	_ = s.store.Close() // it has failed
	s = serve(t, disk, `snapshots: [{name: p, volumes: [a], every: 24h, names: "%v-%n"}]`)
	defer s.stop(t)
	if names := s.names(t); len(names) == 0 || names[0] != "a-1" {
		t.Errorf("snapshots %v", names)
	}
	if done, err := s.RunPolicy(ctx, "p"); err != nil || done.Problem != "" {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestLedger_Damage: a record that cannot be read makes its snapshot one of no policy, which
// stays.
func TestLedger_Damage(t *testing.T) {
	ctx := context.Background()
	const text = `snapshots: [{name: p, volumes: [a], every: 24h, names: "%v-%n", keep: {last: 1}}]`
	disk := vfs.NewMem()
	s := serve(t, disk, text)
	s.volume(t, "a")
	_, err := s.RunPolicy(ctx, "p")
	must.Succeed(t, err)
	own := s.ledger.of("p")[0]
	for _, value := range []string{"{", `{"version":2}`, `{"version":1,"policy":"","of":"00"}`, `{"version":1,"policy":"p","of":"xx"}`} {
		must.Succeed(t, s.store.PutRecords(ctx, backstore.Record{Key: own.key(), Value: []byte(value)}, backstore.Record{Key: []byte(policyPrefix + "p"), Value: []byte(value)}))
		s.stop(t)
		s = serve(t, disk, text)
		for range 2 {
			if done, err := s.RunPolicy(ctx, "p"); err != nil || done.Problem != "" {
				t.Errorf("%s: %+v, %v", value, done, err)
			}
		}
		if _, err := s.store.VolumeByID(own.ID); err != nil {
			t.Errorf("%s: the snapshot: %v", value, err)
		}
	}
	s.stop(t)
}

func FuzzReadTaken(f *testing.F) {
	t := taken{ID: identity{1}, Policy: "p", Of: identity{2}, Run: 3}
	f.Add(t.record().Key, t.record().Value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		got, ok, err := readTaken(key, value)
		if err != nil || !ok {
			return
		}
		again, ok, err := readTaken(got.record().Key, got.record().Value)
		if err != nil || !ok || again.ID != got.ID || again.Of != got.Of || again.Policy != got.Policy || again.Run != got.Run || !again.Time.Equal(got.Time) {
			t.Errorf("%+v is %+v, %v, %v", got, again, ok, err)
		}
	})
}

func FuzzReadState(f *testing.F) {
	s := state{Runs: 3, Error: "e", Underway: &underway{Run: 4, Before: true, Together: 2}}
	f.Add(s.record("p").Key, s.record("p").Value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		policy, got, ok, err := readState(key, value)
		if err != nil || !ok {
			return
		}
		got.record(policy)
	})
}
