package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/conf"
	"odx/internal/kit/logs"
)

// needed is the role that each route needs: read looks at everything but the contents of
// disks, operate changes what a backup or a copy changes, administer destroys.
var needed = map[string]string{
	"GET /v1/replicas":                  "read",
	"GET /v1/replicas/{name}":           "read",
	"POST /v1/replicas":                 "operate",
	"POST /v1/replicas/{name}/run":      "operate",
	"PATCH /v1/replicas/{name}":         "operate",
	"POST /v1/replicas/{name}/failover": "administer",
	"POST /v1/replicas/{name}/failback": "administer",
	"DELETE /v1/replicas/{name}":        "administer",

	"GET /v1/status":                   "read",
	"GET /v1/store":                    "read",
	"GET /v1/store/exclusive":          "read",
	"POST /v1/store/check":             "operate",
	"POST /v1/store/scrub":             "operate",
	"GET /v1/volumes/{name}/diff":      "operate",
	"POST /v1/store/clean":             "operate",
	"GET /v1/store/holds":              "read",
	"DELETE /v1/store/holds/{store}":   "administer",
	"GET /v1/volumes":                  "read",
	"POST /v1/volumes":                 "operate",
	"POST /v1/volumes/{name}/start":    "operate",
	"POST /v1/volumes/{name}/finish":   "operate",
	"PATCH /v1/volumes/{name}":         "operate",
	"DELETE /v1/volumes/{name}":        "administer",
	"POST /v1/volumes/{name}/snapshot": "operate",
	"POST /v1/volumes/{name}/clone":    "operate",
	"POST /v1/volumes/{name}/rename":   "operate",
	"POST /v1/volumes/{name}/revert":   "administer",
	"GET /v1/volumes/{name}/data":      "operate",
	"PUT /v1/volumes/{name}/data":      "operate",
	"DELETE /v1/volumes/{name}/data":   "operate",
	"GET /v1/volumes/{name}/next-data": "operate",
	"POST /v1/volumes/{name}/flush":    "operate",
	"GET /v1/send":                     "operate",
	"POST /v1/receive":                 "operate",
	"GET /v1/partials":                 "read",
	"DELETE /v1/partials/{name}":       "operate",
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

	"GET /v1/snapshots":                          "read",
	"GET /v1/snapshot-policies":                  "read",
	"POST /v1/snapshot-policies/{policy}/run":    "operate",
	"POST /v1/snapshot-policies/{policy}/prune":  "administer",
	"POST /v1/snapshot-policies/{policy}/pause":  "administer",
	"POST /v1/snapshot-policies/{policy}/resume": "administer",
	"GET /v1/config":                             "read",
	"GET /v1/config/file":                        "administer",
	"PUT /v1/config":                             "administer",
	"POST /v1/config/compare":                    "administer",
	"POST /v1/reload":                            "administer",
	"GET /v1/targets":                            "read",
	"POST /v1/targets":                           "administer",
	"GET /v1/targets/{target}":                   "read",
	"DELETE /v1/targets/{target}":                "administer",
	"POST /v1/targets/{target}/luns":             "administer",
	"DELETE /v1/targets/{target}/luns/{lun}":     "administer",
	"POST /v1/targets/{target}/users":            "administer",
	"PATCH /v1/targets/{target}/users/{user}":    "administer",
	"DELETE /v1/targets/{target}/users/{user}":   "administer",
	"POST /v1/targets/{target}/access":           "administer",
	"DELETE /v1/targets/{target}/access/{entry}": "administer",
	"GET /v1/discovery":                          "read",
	"POST /v1/discovery/users":                   "administer",
	"PATCH /v1/discovery/users/{user}":           "administer",
	"DELETE /v1/discovery/users/{user}":          "administer",
	"GET /v1/sessions":                           "read",
	"DELETE /v1/sessions/{tsih}":                 "operate",
	"GET /v1/migrations":                         "read",
	"POST /v1/migrations":                        "administer",
	"POST /v1/migrations/{name}/abort":           "administer",
	"POST /v1/migrations/{name}/finish":          "administer",
	"GET /v1/luns":                               "read",
	"GET /v1/peers":                              "read",
	"GET /v1/peers/tokens":                       "read",
	"POST /v1/files/{name}/token":                "operate",
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

// TestRoles_Log: what was refused is in the log, but not each of many.
func TestRoles_Log(t *testing.T) {
	s := serving(t, nil)
	var text logs.Text
	s.Log = text.Entry()
	server := newServer(s, anyone{reads})
	for range 100 {
		server.http.Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/reload", nil))
	}
	want := `msg="API request refused" by=server needs=administer request="POST /v1/reload" role=read`
	if n := strings.Count(text.String(), want); n < failureBurst || n > failureBurst+10 {
		t.Errorf("%d lines of 100 requests:\n%.300s", n, &text)
	}
}

// TestServing_Handlers: a handler that is mounted is behind the role that it names, and
// does not answer for /v1.
func TestServing_Handlers(t *testing.T) {
	s := serving(t, nil)
	answered := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	s.Handlers = []Mounted{{"GET /metrics", conf.RoleRead, answered}, {"/debug/", conf.RoleAdminister, answered}}
	for name, tt := range map[string]struct {
		role         role
		method, path string
		want         int
	}{
		"read":               {reads, "GET", "/metrics", http.StatusAccepted},
		"another method":     {administers, "POST", "/metrics", http.StatusNotFound},
		"too little":         {operates, "GET", "/debug/pprof/heap", http.StatusForbidden},
		"administer":         {administers, "GET", "/debug/pprof/heap", http.StatusAccepted},
		"neither of the two": {administers, "GET", "/other", http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			newServer(s, anyone{tt.role}).http.Handler.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.want {
				t.Errorf("status %d, want %d", w.Code, tt.want)
			}
		})
	}
	guarded := httptest.NewRecorder()
	NewGuardedServer(s, guardWith()).http.Handler.ServeHTTP(guarded, httptest.NewRequest("GET", "/metrics", nil))
	if guarded.Code != http.StatusUnauthorized {
		t.Errorf("without a secret: %d", guarded.Code)
	}
}
