package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/tokens"
)

// nothing is an administrator of a store that has nothing and takes nothing.
type nothing struct{ admin.Administrator }

var errNothing = errors.Join(errors.New("nothing"), blockdev.ErrReadOnly)

func (nothing) Volumes(context.Context) ([]admin.Volume, error) { return nil, nil }
func (nothing) Files(context.Context) ([]admin.File, error)     { return nil, nil }
func (nothing) Token(context.Context, tokens.ID) (admin.TokenInfo, error) {
	return admin.TokenInfo{}, errNothing
}
func (nothing) CreateVolume(context.Context, string, int64) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) StartVolume(context.Context, string, int64) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) FinishVolume(context.Context, string, string) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) ResizeVolume(context.Context, string, int64) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) SnapshotVolume(context.Context, string, string) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) CloneVolume(context.Context, string, string) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) RenameVolume(context.Context, string, string) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) RevertVolume(context.Context, admin.RevertRequest) (admin.Volume, error) {
	return admin.Volume{}, errNothing
}
func (nothing) Scrub(context.Context, admin.ScrubRequest, func(backstore.ScrubProgress)) (backstore.ScrubResult, error) {
	return backstore.ScrubResult{}, errNothing
}
func (nothing) CreateToken(context.Context, admin.TokenRequest) (admin.MadeToken, error) {
	return admin.MadeToken{}, errNothing
}
func (nothing) WriteToken(context.Context, admin.TokenWrite) (admin.TokenWritten, error) {
	return admin.TokenWritten{}, errNothing
}
func (nothing) ReadToken(context.Context, *tokens.Token, []byte, int64) (int, error) {
	return 0, errNothing
}
func (nothing) RevokeToken(context.Context, *tokens.Token) error { return errNothing }
func (nothing) VerifyToken(context.Context, admin.TokenWrite) (admin.TokenVerified, error) {
	return admin.TokenVerified{}, errNothing
}
func (nothing) WriteVolume(context.Context, string, []byte, int64) error { return errNothing }
func (nothing) CreateFile(context.Context, string, int64) (admin.File, error) {
	return admin.File{}, errNothing
}
func (nothing) CopyFile(context.Context, string, string) (admin.File, error) {
	return admin.File{}, errNothing
}
func (nothing) ResizeFile(context.Context, string, int64) (admin.File, error) {
	return admin.File{}, errNothing
}
func (nothing) RenameFile(context.Context, string, string) (admin.File, error) {
	return admin.File{}, errNothing
}
func (nothing) StartFile(context.Context, admin.FileStart) (admin.File, error) {
	return admin.File{}, errNothing
}
func (nothing) FinishFile(context.Context, admin.FileFinish) (admin.File, error) {
	return admin.File{}, errNothing
}
func (nothing) ChangeDisk(context.Context, admin.DiskRequest, func(admin.DiskProgress)) (admin.DiskResult, error) {
	return admin.DiskResult{}, errNothing
}

// leads reports whether the path of a request is one of a route, {name} and the like
// standing for any element.
func leads(path, route string) bool {
	path, _, _ = strings.Cut(path, "?")
	elements, names := strings.Split(path, "/"), strings.Split(route, "/")
	return slices.EqualFunc(elements, names, func(e, n string) bool { return e == n || strings.HasPrefix(n, "{") })
}

// FuzzBody sends any body to any route that takes one, with anything as the names in its
// path: the answer is a success or a failure with a kind, and never that of a fault of the
// server.
func FuzzBody(f *testing.F) {
	var with []route
	for _, r := range allRoutes() {
		switch r.method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			with = append(with, r)
		}
	}
	skip := map[string]bool{ // they take no body, and need a store
		"/v1/store/check": true, "/v1/store/clean": true, "/v1/volumes/{name}/flush": true, "/v1/files/{name}/disk/check": true,
	}
	for i := range with {
		f.Add(uint8(i), "name", []byte(`{}`))
		f.Add(uint8(i), "iqn.2026-11.example.odx:disks", []byte(`{"name": "a", "lun": 1, "volume": "v", "secret": "0123456789abcdef"}`))
	}
	for _, s := range samples {
		for i, r := range with {
			// Its own routes: with each body at each route, a fuzzer would be through with
			// the seeds after a minute.
			if s.method == r.method && s.body != "" && leads(s.path, r.path) {
				f.Add(uint8(i), "..", []byte(s.body))
			}
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, name string, body []byte) {
		r := with[int(n)%len(with)]
		if skip[r.path] || name == "" {
			return
		}
		s := serving(t, nothing{})
		s.Live = newModelLive(t, s.Audit)
		server := newServer(s, anyone{administers})
		path := r.path
		for _, key := range []string{"name", "target", "user", "id"} {
			path = strings.ReplaceAll(path, "{"+key+"}", strings.ReplaceAll(url.PathEscape(name), ".", "%2E"))
		}
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://odx"+path+"?offset=0", strings.NewReader(string(body)))
		if err != nil {
			return // no path
		}
		w := httptest.NewRecorder()
		server.http.Handler.ServeHTTP(w, req)
		if w.Code/100 == 2 {
			return
		}
		var failure v1.Failure
		if err := json.Unmarshal(w.Body.Bytes(), &failure); err != nil || failure.Kind == "" || failure.Error == "" || failure.Kind == internalKind {
			t.Errorf("%s %s %q: %d %s", r.method, req.URL, body, w.Code, w.Body)
		}
	})
}
