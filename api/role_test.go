package api

import (
	"net/http"
	"strings"
	"testing"

	"odx/admin"
	v1 "odx/api/v1"
)

// needed is the role that each route needs: read looks at everything but the contents of
// disks, operate changes what a backup or a copy changes, administer destroys.
var needed = map[string]string{
	"GET /v1/status":                   "read",
	"GET /v1/store":                    "read",
	"GET /v1/store/exclusive":          "read",
	"POST /v1/store/check":             "operate",
	"POST /v1/store/scrub":             "operate",
	"POST /v1/store/clean":             "operate",
	"GET /v1/volumes":                  "read",
	"POST /v1/volumes":                 "operate",
	"POST /v1/volumes/{name}/start":    "operate",
	"POST /v1/volumes/{name}/finish":   "operate",
	"PATCH /v1/volumes/{name}":         "operate",
	"DELETE /v1/volumes/{name}":        "administer",
	"POST /v1/volumes/{name}/snapshot": "operate",
	"POST /v1/volumes/{name}/clone":    "operate",
	"GET /v1/volumes/{name}/data":      "operate",
	"PUT /v1/volumes/{name}/data":      "operate",
	"DELETE /v1/volumes/{name}/data":   "operate",
	"GET /v1/volumes/{name}/next-data": "operate",
	"POST /v1/volumes/{name}/flush":    "operate",
	"GET /v1/copies":                   "read",
	"GET /v1/tokens":                   "read",
	"GET /v1/tokens/{id}":              "read",
	"POST /v1/tokens":                  "operate",
	"DELETE /v1/tokens/{id}":           "operate",
	"POST /v1/tokens/write":            "operate",
	"POST /v1/tokens/read":             "operate",
	"POST /v1/tokens/revoke":           "operate",
	"POST /v1/tokens/verify":           "operate",
	"GET /v1/files":                    "read",
	"POST /v1/files":                   "operate",
	"PATCH /v1/files/{name}":           "operate",
	"DELETE /v1/files/{name}":          "administer",
	"POST /v1/files/{name}/rename":     "operate",
	"POST /v1/files/{name}/start":      "operate",
	"POST /v1/files/{name}/finish":     "operate",
	"GET /v1/files/{name}/disk":        "read",
	"POST /v1/files/{name}/disk/check": "operate",
	"POST /v1/disks":                   "operate",
}

// TestRoles sends a request to each route with the secret of each role. One that may not is
// refused with the role that it needs, before anything is read or changed.
func TestRoles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var keys []key
	secrets := map[string]string{}
	order := []role{reads, operates, administers}
	for _, r := range order {
		secrets[r.String()] = strings.Repeat(r.String(), 4)
		keys = append(keys, newKey("a "+r.String(), r, secrets[r.String()]))
	}
	base, _ := serveTCP(t, NewGuardedServer(serving(t, s.Admin()), guardWith(keys...)))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	routes := allRoutes()
	for _, r := range routes {
		pattern := r.method + " " + r.path
		needs, listed := needed[pattern]
		if !listed {
			t.Errorf("%s is not in the table of this test", pattern)
			continue
		}
		// Nothing of these names exists, and bodies are missing: nothing happens.
		url := base + strings.NewReplacer("{name}", "none", "{id}", "0000000000000001").Replace(r.path)
		allowed := false
		for _, has := range order {
			allowed = allowed || has.String() == needs
			status, f, _ := send(t, client, r.method, url, "Bearer "+secrets[has.String()])
			if forbidden := status == http.StatusForbidden; forbidden == allowed || status == http.StatusUnauthorized {
				t.Errorf("%s as %v: %d %+v", pattern, has, status, f)
			}
			want := v1.Failure{Kind: "forbidden", Error: "secret a " + has.String() + " from 127.0.0.1 has the role " + has.String() + "; this request needs " + needs}
			if !allowed && (f.Kind != want.Kind || f.Error != want.Error) {
				t.Errorf("%s as %v: %+v, want %+v", pattern, has, f, want)
			}
		}
	}
	if len(needed) != len(routes) {
		t.Errorf("the table has %d routes, the server %d", len(needed), len(routes))
	}
}

// TestRoles_Unfinished: who may begin a file or a volume may give it up.
func TestRoles_Unfinished(t *testing.T) {
	s := open(t, t.TempDir())
	base, _ := serveTCP(t, NewGuardedServer(serving(t, s.Admin()), guardWith(newKey("backup", operates, testSecret))))
	client, err := NewRemoteClient(base, []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	v, err := client.StartVolume(t.Context(), "v", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.DeleteVolume(t.Context(), v.Name); err != nil {
		t.Errorf("volume: %v", err)
	}
	if err := client.DeleteVolume(t.Context(), "src"); err == nil || !strings.Contains(err.Error(), "needs administer") {
		t.Errorf("another volume: %v", err)
	}
	f, err := client.StartFile(t.Context(), admin.FileStart{Name: "f", SizeBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.DeleteFile(t.Context(), f.Name); err != nil {
		t.Errorf("file: %v", err)
	}
	if err := client.DeleteFile(t.Context(), "f"); err == nil || !strings.Contains(err.Error(), "needs administer") {
		t.Errorf("another file: %v", err)
	}
}
