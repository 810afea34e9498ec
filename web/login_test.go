package web

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"odx/conf"
)

// TestPage_Login: a secret of the API gives a cookie that scripts cannot read; nothing else
// does.
func TestPage_Login(t *testing.T) {
	f := serve(t, nil)
	for name, secret := range map[string]string{"none": "", "another": secretOf("other"), "a part": secretOf(conf.RoleRead)[:15]} {
		b := f.browser(t)
		a := b.post("/ui/login", url.Values{"secret": {secret}})
		if a.status != http.StatusUnauthorized || a.header.Get("Set-Cookie") != "" || !strings.Contains(a.body, `role="alert"`) {
			t.Errorf("%s: %d, cookie %q", name, a.status, a.header.Get("Set-Cookie"))
		}
	}
	b := f.browser(t)
	a := b.post("/ui/login", url.Values{"secret": {secretOf(conf.RoleRead)}})
	cookie := a.header.Get("Set-Cookie")
	if a.status != http.StatusSeeOther || !strings.HasPrefix(cookie, "odx=") || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		t.Errorf("login: %d, cookie %q", a.status, cookie)
	}
	if a := b.get("/ui/"); a.status != http.StatusOK || !strings.Contains(a.body, "my-read (read)") {
		t.Errorf("overview: %d", a.status)
	}
	again := b.post("/ui/login", url.Values{"secret": {secretOf(conf.RoleRead)}})
	if again.header.Get("Set-Cookie") == cookie || len(f.sessions.by) != 1 {
		t.Errorf("a second login: the same cookie, or %d sessions", len(f.sessions.by))
	}
}

// TestPage_NoSession: without a session there is the login, its style and its script, and
// nothing else.
func TestPage_NoSession(t *testing.T) {
	f := serve(t, nil)
	b := f.browser(t)
	if a := b.get("/"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/ui/" {
		t.Errorf("/: %d to %q", a.status, a.header.Get("Location"))
	}
	for _, path := range []string{"/ui/login", "/ui/style.css", "/ui/script.js"} {
		if a := b.get(path); a.status != http.StatusOK {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	var closed []string
	for _, v := range views() {
		closed = append(closed, strings.TrimSuffix(v.path, "{$}"))
	}
	for _, a := range acts() {
		closed = append(closed, "/ui/act/"+a.name)
		if got := b.post("/ui/act/"+a.name, url.Values{"forms": {""}}); got.status != http.StatusSeeOther || got.header.Get("Location") != "/ui/login" {
			t.Errorf("POST %s: %d", a.name, got.status)
		}
	}
	for _, path := range closed {
		if a := b.get(path); a.status != http.StatusSeeOther || a.header.Get("Location") != "/ui/login" || strings.Contains(a.body, "src") {
			t.Errorf("%s: %d to %q", path, a.status, a.header.Get("Location"))
		}
	}
}

// TestPage_Failures: wrong secrets of an address are bounded, those of the API included.
func TestPage_Failures(t *testing.T) {
	f := serve(t, nil)
	b := f.browser(t)
	r := httptest.NewRequest(http.MethodGet, "/v1/volumes", nil)
	r.RemoteAddr = "127.0.0.1:1"
	for range 25 {
		_, _ = f.guard.Identify(r, "wrong") // as the API does
	}
	if a := b.post("/ui/login", url.Values{"secret": {secretOf(conf.RoleRead)}}); a.status != http.StatusTooManyRequests {
		t.Errorf("login after wrong secrets: %d", a.status)
	}
}

// TestPage_Host: a name that others can give to the server's address is refused.
func TestPage_Host(t *testing.T) {
	f := serve(t, nil)
	b := f.as(t, conf.RoleRead)
	for host, want := range map[string]int{
		"127.0.0.1": http.StatusOK, "127.0.0.1:1234": http.StatusOK, "localhost:80": http.StatusOK, "[::1]:443": http.StatusOK, "LOCALHOST": http.StatusOK,
		"evil.example": http.StatusForbidden, "evil.example:80": http.StatusForbidden, "localhost.evil.example": http.StatusForbidden, "127.0.0.1.evil.example": http.StatusForbidden,
	} {
		for _, path := range []string{"/ui/", "/ui/login", "/ui/style.css"} {
			a := b.send(http.MethodGet, path, nil, http.Header{"Host": {host}})
			if a.status != want && (a.status != http.StatusSeeOther || want != http.StatusOK) {
				t.Errorf("%s of %s: %d, want %d", path, host, a.status, want)
			}
			if want != http.StatusOK && strings.Contains(a.body, `name="forms"`) {
				t.Errorf("%s of %s shows the session", path, host)
			}
		}
	}
}

// TestPage_Clear: without TLS the page is served on the loopback only.
func TestPage_Clear(t *testing.T) {
	f := serve(t, nil)
	for at, want := range map[string]int{"127.0.0.1:80": 200, "[::1]:80": 200, "[::ffff:127.0.0.1]:80": 200, "192.0.2.1:80": 403, "[2001:db8::1]:80": 403} {
		local, err := net.ResolveTCPAddr("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1/ui/login", nil)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local)))
		if w.Code != want {
			t.Errorf("at %s: %d, want %d", at, w.Code, want)
		}
	}
}

// TestPage_Headers: every answer has the headers that keep other sites away.
func TestPage_Headers(t *testing.T) {
	f := serve(t, nil)
	b := f.as(t, conf.RoleRead)
	for _, path := range []string{"/ui/", "/ui/login", "/ui/script.js", "/ui/none", "/ui/act/create"} {
		h := b.get(path).header
		policy := h.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, h)
		}
	}
}

// TestPage_Forgery: a form of another site, or of another session, changes nothing.
func TestPage_Forgery(t *testing.T) {
	f := serve(t, nil)
	b, other := f.as(t, conf.RoleAdminister), f.as(t, conf.RoleAdminister)
	own := b.forms()
	for name, c := range map[string]struct {
		forms  string
		header http.Header
	}{
		"no token":        {"", nil},
		"another token":   {strings.Repeat("A", len(own)), nil},
		"another session": {other.forms(), nil},
		"another site":    {own, http.Header{"Sec-Fetch-Site": {"cross-site"}}},
		"a sub-domain":    {own, http.Header{"Sec-Fetch-Site": {"same-site"}}},
		"another origin":  {own, http.Header{"Origin": {"http://evil.example"}}},
	} {
		form := url.Values{"forms": {c.forms}, "name": {"forged"}, "size": {"1MiB"}}
		if a := b.send(http.MethodPost, "/ui/act/create", form, c.header); a.status != http.StatusForbidden {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if got := f.volumes(t); len(got) != 1 {
		t.Errorf("volumes %v", got)
	}
	if a := b.get("/ui/act/create?name=forged&size=1MiB&forms=" + own); a.status != http.StatusOK || len(f.volumes(t)) != 1 {
		t.Errorf("GET: %d, volumes %v", a.status, f.volumes(t))
	}
	if a := b.post("/ui/act/create", url.Values{"forms": {own}, "name": {"own"}, "size": {"1MiB"}}); a.status != http.StatusSeeOther || len(f.volumes(t)) != 2 {
		t.Errorf("the own form: %d, volumes %v", a.status, f.volumes(t))
	}
}

// TestPage_Bounds: a form that is too large is refused.
func TestPage_Bounds(t *testing.T) {
	f := serve(t, nil)
	b := f.as(t, conf.RoleOperate)
	form := url.Values{"forms": {b.forms()}, "name": {strings.Repeat("x", 2*maxForm)}, "size": {"1MiB"}}
	if a := b.post("/ui/act/create", form); a.status != http.StatusForbidden || len(f.volumes(t)) != 1 {
		t.Errorf("%d, volumes %v", a.status, f.volumes(t))
	}
}
