package web

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"odx/api"
	"odx/conf"
)

// TestSessions_End: a session ends after a time, without use, and when it is ended.
func TestSessions_End(t *testing.T) {
	everyone := func(i api.Identity) (api.Identity, bool) { return i, true }
	for name, c := range map[string]struct {
		use func(s *sessions, cookie string, pass func(time.Duration))
		ok  bool
	}{
		"used":          {func(*sessions, string, func(time.Duration)) {}, true},
		"idle":          {func(_ *sessions, _ string, pass func(time.Duration)) { pass(idleness) }, false},
		"almost idle":   {func(_ *sessions, _ string, pass func(time.Duration)) { pass(idleness - time.Second) }, true},
		"ended":         {func(s *sessions, cookie string, _ func(time.Duration)) { s.end(cookie) }, false},
		"ended another": {func(s *sessions, _ string, _ func(time.Duration)) { s.end("x") }, true},
		"refreshed only": {func(s *sessions, cookie string, pass func(time.Duration)) {
			for range 4 {
				pass(idleness / 4)
				s.find(cookie, false, everyone)
			}
		}, false},
		"too old": {func(s *sessions, cookie string, pass func(time.Duration)) {
			for range lifetime / (idleness / 2) {
				pass(idleness / 2)
				s.find(cookie, true, everyone)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
			s := newSessions()
			s.now = func() time.Time { return now }
			cookie := s.begin(api.Identity{Name: "alice"})
			c.use(&s, cookie, func(d time.Duration) { now = now.Add(d) })
			if _, ok := s.find(cookie, true, everyone); ok != c.ok {
				t.Errorf("found %t, want %t", ok, c.ok)
			}
			if !c.ok && len(s.by) != 0 {
				t.Errorf("%d sessions kept", len(s.by))
			}
		})
	}
}

// TestSessions_Bound: a secret has a bounded number of sessions; the one that was used
// longest ago ends, and none of another secret does.
func TestSessions_Bound(t *testing.T) {
	everyone := func(i api.Identity) (api.Identity, bool) { return i, true }
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	s := newSessions()
	s.now = func() time.Time { return now }
	other := s.begin(api.Identity{Name: "bob"})
	first, second := s.begin(api.Identity{Name: "alice"}), s.begin(api.Identity{Name: "alice"})
	now = now.Add(time.Second)
	s.find(first, true, everyone)
	for range maxSessions - 1 {
		now = now.Add(time.Second)
		s.begin(api.Identity{Name: "alice"})
	}
	for name, c := range map[string]struct {
		cookie string
		ok     bool
	}{"another secret": {other, true}, "used since": {first, true}, "used longest ago": {second, false}} {
		if _, ok := s.find(c.cookie, true, everyone); ok != c.ok {
			t.Errorf("%s: found %t", name, ok)
		}
	}
	if len(s.by) != maxSessions+1 {
		t.Errorf("%d sessions", len(s.by))
	}
}

// TestPage_Reload: a session ends with its secret, and has the role that it has now.
func TestPage_Reload(t *testing.T) {
	f := serve(t, nil)
	reader, operator, out := f.as(t, conf.RoleRead), f.as(t, conf.RoleOperate), f.as(t, conf.RoleRead)
	next := *f.cfg
	next.API.Secrets = nil
	for _, s := range f.cfg.API.Secrets {
		switch s.Role {
		case conf.RoleRead:
			s.Role = conf.RoleOperate
			next.API.Secrets = append(next.API.Secrets, s)
		case conf.RoleOperate:
		default:
			next.API.Secrets = append(next.API.Secrets, s)
		}
	}
	p, err := f.guard.Prepare(&next)
	if err != nil {
		t.Fatal(err)
	}
	p.Commit()
	if a := operator.get("/ui/"); a.status != http.StatusSeeOther {
		t.Errorf("the secret is gone: %d", a.status)
	}
	if a := reader.act("create", url.Values{"name": {"made"}, "size": {"1MiB"}}); a.status != http.StatusSeeOther {
		t.Errorf("the role is another one: %d", a.status)
	}
	if a := out.post("/ui/logout", url.Values{"forms": {out.forms()}}); a.status != http.StatusSeeOther {
		t.Errorf("logout: %d", a.status)
	}
	if a := out.get("/ui/"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/ui/login" {
		t.Errorf("after the logout: %d", a.status)
	}
}
