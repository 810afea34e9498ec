package api

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"odx/admin"
	"odx/conf"
	"odx/internal/kit/must"
)

// aMigration is one in every state at once.
var aMigration = admin.Migration{
	Volume: "src", To: "b:dst", Peer: "b", State: admin.MigrationCopying, SizeBytes: 1 << 30, Rounds: 3, CopiedBytes: 5 << 20, RoundBytes: 1 << 20, RoundCopied: 4096,
	BytesPerSecond: 100, Remaining: 1500 * time.Millisecond, Diverges: true, Throttled: true, Cuts: 2, Cut: 250 * time.Millisecond, LongestCut: 750 * time.Millisecond,
	Problem: "a problem", Began: time.Date(2026, 12, 1, 2, 3, 4, 0, time.UTC), Ended: time.Date(2026, 12, 1, 3, 3, 4, 0, time.UTC),
}

func (m *modelLive) Migrations(context.Context) ([]admin.Migration, error) {
	return []admin.Migration{aMigration}, m.err
}

func (m *modelLive) StartMigration(_ context.Context, r admin.MigrationRequest) (admin.Migration, error) {
	if r.Volume == "busy" {
		return admin.Migration{}, admin.ErrMigrating
	}
	return admin.Migration{Volume: r.Volume, To: r.To, Peer: r.Portal, SizeBytes: r.Rate, CopiedBytes: r.Throttle, Diverges: r.Overwrite, Problem: loginText(r.Login), Began: aMigration.Began}, m.err
}

// loginText returns what a login says.
func loginText(l *conf.Login) string {
	if l == nil {
		return ""
	}
	_, file, _ := l.Secret.Source()
	return l.Name + " by " + file
}

func (m *modelLive) AbortMigration(_ context.Context, volume string) (admin.Migration, error) {
	switch volume {
	case "moved":
		return admin.Migration{}, admin.ErrMigrated
	case "leaving":
		return admin.Migration{}, admin.ErrHandingOver
	}
	return admin.Migration{Volume: volume, Began: aMigration.Began}, m.err
}

func (m *modelLive) FinishMigration(_ context.Context, volume string, keepSource bool) (admin.Migration, error) {
	if volume == "none" {
		return admin.Migration{}, admin.ErrNoMigration
	}
	return admin.Migration{Volume: volume, Throttled: keepSource, Began: aMigration.Began}, m.err
}

// TestClient_Migrations: a client says the same of migrations as the server itself, and errors
// keep their kinds.
func TestClient_Migrations(t *testing.T) {
	eachLive(t, func(t *testing.T, _ *modelLive, l admin.Live) {
		list, err := l.Migrations(t.Context())
		must.Succeed(t, err)
		if len(list) != 1 || !reflect.DeepEqual(list[0], aMigration) {
			t.Errorf("%+v", list)
		}
		r := admin.MigrationRequest{Volume: "a/b", To: "c", Portal: "192.0.2.1:3260", Overwrite: true, Rate: 7, Throttle: 8,
			Login: &conf.Login{User: conf.User{Name: "odx", Secret: conf.FileSecret("/s")}}}
		m, err := l.StartMigration(t.Context(), r)
		if want := (admin.Migration{Volume: "a/b", To: "c", Peer: "192.0.2.1:3260", SizeBytes: 7, CopiedBytes: 8, Diverges: true, Problem: "odx by /s", Began: aMigration.Began}); err != nil || m != want {
			t.Errorf("start: %+v, %v", m, err)
		}
		if m, err = l.FinishMigration(t.Context(), "src", true); err != nil || !m.Throttled || m.Volume != "src" {
			t.Errorf("finish: %+v, %v", m, err)
		}
		if m, err = l.AbortMigration(t.Context(), "src"); err != nil || m.Volume != "src" {
			t.Errorf("abort: %+v, %v", m, err)
		}
		_, err = l.StartMigration(t.Context(), admin.MigrationRequest{Volume: "busy"})
		_, moved := l.AbortMigration(t.Context(), "moved")
		_, leaving := l.AbortMigration(t.Context(), "leaving")
		_, none := l.FinishMigration(t.Context(), "none", false)
		for _, tt := range []struct{ got, want error }{{err, admin.ErrMigrating}, {moved, admin.ErrMigrated}, {leaving, admin.ErrHandingOver}, {none, admin.ErrNoMigration}} {
			if !errors.Is(tt.got, tt.want) {
				t.Errorf("%v, want %v", tt.got, tt.want)
			}
		}
	})
}
