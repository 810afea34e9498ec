package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"odx/api"
	"odx/blockdev"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secretOf returns the secret of a role in the tests.
func secretOf(r conf.Role) string { return "the secret of " + string(r) }

const testTarget = "iqn.2026-11.example.odx:disks"

// configuration returns one with the secrets of the roles, in dir.
func configuration(t *testing.T, dir string, roles ...conf.Role) *conf.Config {
	t.Helper()
	text := fmt.Sprintf("data_dir: %s\nportals: [\"127.0.0.1:0\"]\ntargets:\n  - name: %s\n    luns: [{lun: 0, volume: src, size: 64MiB}]\n"+
		"api:\n  listen: 127.0.0.1:0\n  secrets:\n", dir, testTarget)
	for _, r := range roles {
		text += fmt.Sprintf("    - {name: my-%s, role: %s, secret: %q}\n", r, r, secretOf(r))
	}
	file := filepath.Join(dir, "odx.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// fixture is a page of a real service.
type fixture struct {
	*page
	service *target.Service
	guard   *api.Guard
	cfg     *conf.Config
	url     string
}

// serve serves a page until the test ends. change, which may be nil, changes what it shows.
func serve(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	cfg := configuration(t, t.TempDir(), conf.RoleRead, conf.RoleOperate, conf.RoleAdminister)
	service, err := target.Start(t.Context(), cfg, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Stop(context.Background()); err != nil && !errors.Is(err, blockdev.ErrClosed) {
			t.Error(err)
		}
	})
	guard, _, err := api.NewGuard(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Administrator: service.Admin(), Live: service, Audit: service.Audit(), Guard: guard, Log: logs.Discard()}
	if change != nil {
		change(&o)
	}
	f := &fixture{page: newPage(o), service: service, guard: guard, cfg: cfg}
	server := httptest.NewServer(f.page)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// browser is a client with cookies, which follows no redirect.
type browser struct {
	t *testing.T
	f *fixture
	http.Client
}

func (f *fixture) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t, f, http.Client{Jar: jar, Transport: &http.Transport{}}}
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(b.CloseIdleConnections)
	return b
}

// as returns a browser that has logged in.
func (f *fixture) as(t *testing.T, r conf.Role) *browser {
	t.Helper()
	b := f.browser(t)
	if a := b.post("/ui/login", url.Values{"secret": {secretOf(r)}}); a.status != http.StatusSeeOther {
		t.Fatalf("login: %d %s", a.status, a.body)
	}
	return b
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

// request returns a request with the cookies of the browser, which is not sent.
func (b *browser) request(path string) *http.Request {
	b.t.Helper()
	r := httptest.NewRequest(http.MethodGet, b.f.url+path, nil)
	for _, c := range b.Jar.Cookies(r.URL) {
		r.AddCookie(c)
	}
	return r
}

func (b *browser) get(path string) answer { return b.send(http.MethodGet, path, nil, nil) }

func (b *browser) post(path string, form url.Values) answer {
	return b.send(http.MethodPost, path, form, nil)
}

func (b *browser) send(method, path string, form url.Values, header http.Header) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.f.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for key, values := range header {
		req.Header[key] = values
		if key == "Host" {
			req.Host = values[0]
		}
	}
	resp, err := b.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

var formsToken = regexp.MustCompile(`name="forms" value="([A-Z0-9]+)"`)

// forms returns the token of the browser's session.
func (b *browser) forms() string {
	b.t.Helper()
	m := formsToken.FindStringSubmatch(b.get("/ui/").body)
	if m == nil {
		b.t.Fatal("the overview has no token")
	}
	return m[1]
}

// act acts, with the token of the session.
func (b *browser) act(name string, form url.Values) answer {
	b.t.Helper()
	form.Set("forms", b.forms())
	return b.post("/ui/act/"+name, form)
}

// volumes returns the names of the volumes of a service.
func (f *fixture) volumes(t *testing.T) (names []string) {
	t.Helper()
	all, err := f.service.Admin().Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		names = append(names, v.Name)
	}
	return names
}
