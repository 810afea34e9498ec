package target

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"odx/admin"
	"odx/conf"
	"odx/internal/kit/must"
	"odx/peer"
	"odx/replica/pair"
)

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// copiesSlowly begins the migration of web, and returns while the destination fetches.
func copiesSlowly(t *testing.T, a, b *departing) {
	t.Helper()
	_, err := a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:x", Rate: 1 << 10})
	must.Succeed(t, err)
	eventually(t, "no round", func() bool {
		list, err := b.Replicas().List(t.Context())
		must.Succeed(t, err)
		return len(list) == 1 && list[0].Running
	})
}

// An abort cancels the round of the destination. If that does not answer, the LUN stays where it
// is, and what the destination has is removed once it answers.
func TestMigrate_Remote_Aborted(t *testing.T) {
	a, b := departure(t, "")
	must.Succeed(t, login(t, a.Service, 0).WriteAt(t.Context(), random(1, departingSize), 0))
	copiesSlowly(t, a, b)
	m, err := a.migrations.AbortMigration(t.Context(), "web")
	must.Succeed(t, err)
	if m.State != admin.MigrationAborted || m.Problem != "aborted by an administrator" {
		t.Errorf("%+v", m)
	}
	nothingLeft(t, a, b)

	copiesSlowly(t, a, b)
	answers := b.handler.Swap(nil)
	m, err = a.migrations.AbortMigration(t.Context(), "web")
	must.Succeed(t, err)
	if m.State != admin.MigrationAborting || m.Problem == "" {
		t.Errorf("%+v", m)
	}
	b.handler.Store(answers)
	if m := awaitMigration(t, a.Service, "web"); m.State != admin.MigrationAborted {
		t.Errorf("%+v", m)
	}
	nothingLeft(t, a, b)
}

// While a destination does not answer the offer, the other migrations and the configuration are as
// accessible as ever.
func TestMigrate_Remote_Offer(t *testing.T) {
	a, b := departure(t, "")
	asked, answer := make(chan struct{}, 8), make(chan struct{})
	hung := http.NewServeMux()
	hung.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		w.WriteHeader(http.StatusForbidden)
	})
	answers := b.handler.Swap(hung)
	begun := make(chan error, 1)
	go func() {
		_, err := a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:x"})
		begun <- err
	}()
	<-asked
	listed := make(chan error, 1)
	go func() {
		_, err := a.migrations.Migrations(t.Context())
		_, edited := a.EditConfig(t.Context(), conf.AddLUN{Target: "iqn.2026-11.example.odx:others", LUN: conf.LUN{Number: 7, Volume: "more", Size: 1 << 20, BlockSize: 512}})
		listed <- errors.Join(err, edited)
	}()
	select {
	case err := <-listed:
		must.Succeed(t, err)
	case err := <-begun:
		t.Errorf("the start has ended first: %v", err)
	}
	close(answer)
	if err := <-begun; err == nil {
		t.Error("a destination that refuses is begun with")
	}
	b.handler.Store(answers)
	if _, err := a.migrations.AbortMigration(t.Context(), "web"); !errors.Is(err, admin.ErrNoMigration) {
		t.Errorf("abort of what has not begun: %v", err)
	}
	nothingLeft(t, a, b)
}

// A volume that has a replica, or is one, is not left by its LUNs: the replica would silently
// stay behind. One that begins during a migration ends before the cut.
func TestMigrate_Replicated(t *testing.T) {
	a, b := departure(t, "")
	ctx := t.Context()
	must.Succeed(t, b.Replicas().Start(ctx, pair.StartRequest{Name: "copy", Peer: "other", Source: "web"}))
	_, err := b.Replicas().Round(ctx, "copy", pair.RoundOptions{})
	must.Succeed(t, err)
	for _, to := range []string{"x", "other:x"} {
		if _, err := a.migrations.StartMigration(ctx, admin.MigrationRequest{Volume: "web", To: to}); !errors.Is(err, admin.ErrInUse) {
			t.Errorf("to %s, with a replica: %v", to, err)
		}
	}
	v, err := b.store.Volume("copy")
	must.Succeed(t, err)
	if err := b.Replicas().CheckMove(v); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("a replica: %v", err)
	}
	must.Succeed(t, b.Replicas().Forget(ctx, "copy", false))

	must.Succeed(t, login(t, a.Service, 0).WriteAt(ctx, random(1, departingSize), 0))
	for _, to := range []string{"x", "other:x"} {
		var begun error
		began := false
		a.reached = func(step string) {
			if !began && (step == "migration: difference copied" || step == "migration: round of the destination") {
				began = true
				begun = b.Replicas().Start(ctx, pair.StartRequest{Name: "late", Peer: "other", Source: "web"})
			}
		}
		_, err = a.migrations.StartMigration(ctx, admin.MigrationRequest{Volume: "web", To: to})
		must.Succeed(t, err)
		eventually(t, "the replica does not keep the LUN from leaving", func() bool {
			return strings.Contains(migrationOf(t, a.Service, "web").Problem, "replica late")
		})
		must.Succeed(t, begun, b.Replicas().Forget(ctx, "late", false))
		if m := awaitMigration(t, a.Service, "web"); m.State != admin.MigrationMoved {
			t.Fatalf("%+v", m)
		}
		if to == "other:x" {
			return
		}
		_, err = a.migrations.FinishMigration(ctx, "web", false)
		must.Succeed(t, err)
		_, err = a.migrations.StartMigration(ctx, admin.MigrationRequest{Volume: "x", To: "web"})
		must.Succeed(t, err)
		awaitMigration(t, a.Service, "x")
		_, err = a.migrations.FinishMigration(ctx, "x", false)
		must.Succeed(t, err)
	}
}

// After a move, a destination that is lost does not make the source serve what is old; it can be
// finished once the peer is out of the configuration, and so can a source that is lost.
func TestMigrate_Remote_Lost(t *testing.T) {
	a, b := departure(t, "")
	ctx := t.Context()
	_, err := a.migrations.StartMigration(ctx, admin.MigrationRequest{Volume: "web", To: "other:x"})
	must.Succeed(t, err)
	awaitMigration(t, a.Service, "web")
	b.handler.Store(nil)
	if _, err := a.Replicas().Failover(ctx, "migration-of-web", true, pair.RoundOptions{}); !errors.Is(err, pair.ErrRole) {
		t.Errorf("failover to a source that was left: %v", err)
	}
	if _, err := a.migrations.FinishMigration(ctx, "web", true); !errors.Is(err, peer.ErrDown) {
		t.Errorf("finish: %v", err)
	}
	text, err := os.ReadFile(a.file())
	must.Succeed(t, err)
	before, _, _ := strings.Cut(string(text), "peers:")
	_, err = a.PutConfig(ctx, []byte(before), "")
	must.Succeed(t, err)
	_, err = a.migrations.FinishMigration(ctx, "web", true)
	must.Succeed(t, err)
	nothingLeft(t, a)
	v, err := a.store.Volume("web")
	must.Succeed(t, err, v.WriteAt(ctx, make([]byte, 4096), 0))

	if err := b.Replicas().Forget(ctx, "migration-of-web", false); !errors.Is(err, pair.ErrRole) {
		t.Errorf("forget at the destination: %v", err)
	}
	must.Succeed(t, b.Replicas().Forget(ctx, "migration-of-web", true))
	nothingLeft(t, b)
}
