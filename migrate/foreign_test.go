package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// A LUN moves to the LUN of another target, whatever happens to any one operation there: it has
// all that was written, durably, and initiators have seen nothing.
func TestManager_Foreign_Faults(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := begin(t, rand.New(rand.NewPCG(seed, 0)))
	w.start()
	w.check(w.await(), w.model)
	operations := w.far.n
	w.end()
	runs := sample.Size(5, 60, faults*operations)
	for i := range runs {
		at, how := 1+i*operations*faults/runs/faults, i%faults
		t.Run(fmt.Sprintf("%d of %d, %d", at, operations, how), func(t *testing.T) {
			t.Parallel() // most of it is a pause after an error
			w := begin(t, rand.New(rand.NewPCG(seed, uint64(i))))
			defer w.end()
			w.far.at, w.far.how = at, how
			w.start()
			m := w.await()
			if m.State != admin.MigrationMoved {
				t.Errorf("%+v", m)
			}
			w.check(m, w.model)
		})
	}
}

// The power of the server, of the target or of both fails at any step, or the process alone
// ends: the next one moves the LUN, or aborts if that is asked of it, and the LUN has what it had
// at the start.
func TestManager_Foreign_Killed(t *testing.T) {
	for n := range sample.Size(1, 4, 60) {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := begin(t, rand.New(rand.NewPCG(seed, 0)))
			defer w.end()
			var steps []string
			w.reached = func(step string) {
				steps = append(steps, step)
				for _, power := range []bool{true, false} {
					killed(t, w, step, n%2 == 1, power)
				}
			}
			w.start()
			w.check(w.await(), w.model)
			for _, want := range []string{"point taken", "part of a round noted", "difference copied", "source frozen", "last difference copied", "file replaced", "moved"} {
				if !slices.Contains(steps, want) {
					t.Errorf("step %q was not reached, only %q", want, steps)
				}
			}
		})
	}
}

// killed starts a server on what an end at this step leaves. lost: the server loses its power,
// else it ends; power: the target keeps it.
func killed(t *testing.T, w *world, step string, lost, power bool) {
	t.Helper()
	fs := w.fs.ProcessClone()
	if lost {
		fs = w.fs.CrashClone(w.rng)
	}
	next := newWorld(t, w.rng, fs, w.far.clone(power), w.onFar)
	defer next.end()
	what := fmt.Sprintf("at %q, the server loses power: %t, the target keeps it: %t", step, lost, power)
	if t.Failed() { // one is enough
		return
	}
	next.m.Thaw(t.Context())
	p := make([]byte, backstore.BlockLength)
	if err := errors.Join(next.lun().ReadAt(t.Context(), p, 0), next.lun().WriteAt(t.Context(), p, 0)); err != nil {
		t.Errorf("%s: the LUN is not written to before the migration goes on: %v", what, err)
	}
	had := next.content()
	if (!lost || w.onFar) && len(differing(had, w.model)) != 0 {
		t.Errorf("%s: the LUN has other data than was written in blocks %v", what, differing(had, w.model))
	}
	if all, err := next.m.Migrations(t.Context()); err != nil || len(all) == 0 {
		return // it had not begun
	}
	if w.rng.IntN(3) == 0 {
		if _, err := next.m.AbortMigration(t.Context(), "a"); err != nil && !errors.Is(err, admin.ErrMigrated) {
			t.Errorf("%s: abort: %v", what, err)
		}
	}
	next.m.Resume()
	m := next.await()
	next.check(m, had)
	if t.Failed() {
		t.Error(what)
	}
}

// An abort at any step leaves the LUN where it is, or comes too late.
func TestManager_Foreign_Aborted(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ended := map[admin.MigrationState]int{}
	for i := range sample.Size(5, 20, 200) {
		w := begin(t, rand.New(rand.NewPCG(seed, uint64(i))))
		var aborting sync.WaitGroup
		n := 0
		w.reached = func(string) {
			if n++; n == i+1 {
				aborting.Go(func() {
					if _, err := w.m.AbortMigration(context.Background(), "a"); err != nil && !errors.Is(err, admin.ErrMigrated) {
						t.Errorf("abort: %v", err)
					}
				})
			}
		}
		w.start()
		m := w.await()
		aborting.Wait()
		if ended[m.State]++; m.State == admin.MigrationAborted && w.forgotten == 0 {
			t.Error("what is known of the LUN of the other target is not forgotten")
		}
		w.check(m, w.model)
		w.end()
	}
	t.Logf("%v", ended)
}

// What cannot be the destination is refused, and nothing is left of it.
func TestManager_Foreign_Refused(t *testing.T) {
	file := conf.User{Name: "odx", Secret: conf.FileSecret("/s")}
	for name, tt := range map[string]struct {
		change func(w *world, r *admin.MigrationRequest)
		want   error
	}{
		"has data":         {func(w *world, _ *admin.MigrationRequest) { w.far.condition.Data = true }, backstore.ErrExists},
		"registered":       {func(w *world, _ *admin.MigrationRequest) { w.far.condition.Registered = 1 }, admin.ErrInUse},
		"reserved":         {func(w *world, r *admin.MigrationRequest) { w.far.condition.Reserved, r.Overwrite = true, true }, admin.ErrInUse},
		"protected":        {func(w *world, r *admin.MigrationRequest) { w.far.condition.Protected, r.Overwrite = true, true }, blockdev.ErrReadOnly},
		"of this server":   {func(w *world, r *admin.MigrationRequest) { w.far.condition.Own, r.Overwrite = "volume a", true }, blockdev.ErrInvalid},
		"large blocks":     {func(w *world, r *admin.MigrationRequest) { w.far.blockLength = 4096 }, blockdev.ErrInvalid},
		"no name of a LUN": {func(_ *world, r *admin.MigrationRequest) { r.To = "iscsi://192.0.2.9/disk/0" }, blockdev.ErrInvalid},
		"a portal":         {func(_ *world, r *admin.MigrationRequest) { r.Portal = "192.0.2.1:3260" }, blockdev.ErrInvalid},
		"a secret itself": {func(_ *world, r *admin.MigrationRequest) {
			r.Login = &conf.Login{User: conf.User{Name: "odx", Secret: conf.InlineSecret("secret")}}
		}, blockdev.ErrInvalid},
		"no secret": {func(_ *world, r *admin.MigrationRequest) {
			r.Login = &conf.Login{User: file, Mutual: &conf.User{Name: "b"}}
		}, blockdev.ErrInvalid},
		"a login elsewhere": {func(_ *world, r *admin.MigrationRequest) { r.To, r.Login = "b", &conf.Login{User: file} }, blockdev.ErrInvalid},
		"is gone":           {func(w *world, _ *admin.MigrationRequest) { w.store.Close() }, backstore.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			w := begin(t, rand.New(rand.NewPCG(1, 1)))
			defer w.m.Close()
			r := admin.MigrationRequest{Volume: "a", To: farURL}
			before := slices.Clone(w.far.data)
			tt.change(w, &r)
			if _, err := w.m.StartMigration(t.Context(), r); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if all, _ := w.m.Migrations(t.Context()); len(all) != 0 || !slices.Equal(w.far.data, before) {
				t.Errorf("%+v is left, or data has changed", all)
			}
		})
	}
}

// A migration that was aborted stays what it was if the next one does not begin.
func TestManager_Foreign_RefusedAgain(t *testing.T) {
	w := begin(t, rand.New(rand.NewPCG(1, 2)))
	defer w.end()
	w.far.at, w.far.how = 5, leaves
	w.start()
	aborted, err := w.m.AbortMigration(t.Context(), "a")
	if err != nil || aborted.State != admin.MigrationAborted {
		t.Fatalf("%+v, %v", aborted, err)
	}
	w.far.condition.Protected = true
	if _, err := w.m.StartMigration(t.Context(), admin.MigrationRequest{Volume: "a", To: farURL}); !errors.Is(err, blockdev.ErrReadOnly) {
		t.Fatal(err)
	}
	if all, _ := w.m.Migrations(t.Context()); len(all) != 1 || all[0].Began != aborted.Began {
		t.Errorf("%+v, want %+v", all, aborted)
	}
	w.far.condition.Protected = false
	w.start()
	m := w.await()
	w.check(m, w.model)
}

// A copy that is interrupted goes on from what was noted, not from its beginning.
func TestManager_Foreign_GoesOn(t *testing.T) {
	w := begin(t, rand.New(rand.NewPCG(1, 3)))
	defer w.end()
	for off := int64(0); off < worldSize; off += 64 << 10 {
		p := make([]byte, 64<<10)
		for i := range p {
			p[i] = byte(w.rng.Uint32())
		}
		if err := w.lun().WriteAt(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
		copy(w.model[off:], p)
	}
	noted := 0
	w.reached = func(step string) {
		if step != "part of a round noted" {
			return
		}
		if noted++; noted == 6 { // of 8
			w.far.mu.Lock()
			w.far.at, w.far.how = w.far.n+1, failsBefore
			w.far.mu.Unlock()
		}
	}
	w.start()
	m := w.await()
	w.check(m, w.model)
	w.m.Close() // it has released the LUN
	// The second time it is opened with what the secrets are by then.
	if w.opened < 2 || w.inUse != 0 {
		t.Errorf("the LUN was opened %d times, and is open %d times at the end", w.opened, w.inUse)
	}
	if limit := int64(worldSize + worldSize/8 + 64*block); m.CopiedBytes > limit || m.CopiedBytes < worldSize {
		t.Errorf("%d bytes were copied, want at most %d", m.CopiedBytes, limit)
	}
	if m.Began.IsZero() || m.Ended.Before(m.Began) || time.Since(m.Began) > time.Minute {
		t.Errorf("%+v", m)
	}
}

// A LUN elsewhere that grows along with the source has zeros in what both have grown by.
func TestManager_Foreign_Grown(t *testing.T) {
	w := begin(t, rand.New(rand.NewPCG(1, 5)))
	defer w.end()
	const by = 64 << 10
	w.refused = 1
	w.reached = func(step string) {
		if v, err := w.store.Volume("a"); step == "held" && err == nil && v.Size() == worldSize {
			if err := v.Grow(context.Background(), worldSize+by); err != nil {
				t.Error(err)
			}
			w.far.grow(by)
		}
	}
	w.start()
	if m := w.await(); m.State != admin.MigrationMoved {
		t.Fatalf("%+v", m)
	}
	if i := slices.IndexFunc(w.far.durable[worldSize:], func(b byte) bool { return b != 0 }); i >= 0 || len(w.far.durable) != worldSize+by {
		t.Errorf("%d bytes, and what was there before is at byte %d of those that are new", len(w.far.durable), i)
	}
	if got := w.far.durable[:worldSize]; !slices.Equal(got, w.model) {
		t.Errorf("the LUN has other data at %v", differing(got, w.model))
	}
}

// A point in time is durable before it is copied: otherwise the LUN elsewhere keeps what the source
// loses with its power, where no later point differs from the one before.
func TestManager_Foreign_PointLost(t *testing.T) {
	w := begin(t, rand.New(rand.NewPCG(1, 4)))
	defer w.end()
	model := w.model
	w.model = nil // nothing but what follows is written, and above all nothing is flushed
	p := bytes.Repeat([]byte{0x77}, block)
	slow, written, copied := false, false, false
	w.reached = func(step string) {
		switch {
		case step == "part of a round noted" && !slow: // so that another round follows, not the cut
			slow = true
			<-time.After(shortRound)
		case step == "difference copied" && !written:
			written = true
			for off := int64(0); off < worldSize; off += 8 * block {
				must.Succeed(t, w.lun().WriteAt(t.Context(), p, off))
				copy(model[off:], p)
			}
			must.Succeed(t, w.store.WriteOut(t.Context()))
		case step == "difference copied" && !copied:
			copied = true
			for range 8 { // of what is not durable, each loses something else
				killed(t, w, step, true, true)
			}
		}
	}
	w.start()
	m := w.await()
	w.reached = nil
	w.check(m, model)
	if !slow || !copied {
		t.Errorf("a part was noted: %t; a second round copied what differs: %t", slow, copied)
	}
}
