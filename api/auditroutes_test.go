package api

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"odx/admin"
	"odx/audit"
	"odx/internal/kit/logs"
)

var update = flag.Bool("update", false, "write testdata: read the difference, it is what administrators find in their files")

// sample is a request that its route answers with a success, after those before it.
type sample struct{ method, path, body string }

// samples has a request for each route, in an order in which each is possible. TOKEN, ID
// and SCRATCH are from the last response that had them.
var samples = []sample{
	{"GET", "/v1/status", ""},
	{"GET", "/v1/peers", ""},
	{"GET", "/v1/peers/tokens", ""},
	{"GET", "/v1/store", ""},
	{"GET", "/v1/store/exclusive", ""},
	{"POST", "/v1/store/check", ""},
	{"POST", "/v1/store/scrub", "{}"},
	{"POST", "/v1/store/clean", ""},
	{"GET", "/v1/store/holds", ""},
	{"DELETE", "/v1/store/holds/00112233445566778899aabbccddeeff", ""},
	{"GET", "/v1/volumes", ""},
	{"POST", "/v1/volumes", `{"name": "v", "size_bytes": 1048576}`},
	{"PATCH", "/v1/volumes/v", `{"size_bytes": 2097152}`},
	{"POST", "/v1/volumes/v/snapshot", `{"name": "s"}`},
	{"POST", "/v1/volumes/s/clone", `{"name": "c"}`},
	{"POST", "/v1/volumes/whole/start", `{"size_bytes": 1048576}`},
	{"POST", "/v1/volumes/whole/finish", `{"scratch": "SCRATCH"}`},
	{"PUT", "/v1/volumes/v/data?offset=4096", "some data"},
	{"PUT", "/v1/volumes/v/data?offset=8192", "some more, in the same sum"},
	{"GET", "/v1/volumes/v/data?offset=4096&length=9", ""},
	{"GET", "/v1/volumes/v/next-data?offset=0", ""},
	{"GET", "/v1/volumes/v/diff?base=s", ""},
	{"DELETE", "/v1/volumes/v/data?offset=4096&length=4096", ""},
	{"POST", "/v1/volumes/v/flush", ""},
	{"POST", "/v1/tokens", `{"volume": "v", "length": 8192}`},
	{"GET", "/v1/tokens", ""},
	{"GET", "/v1/tokens/ID", ""},
	{"GET", "/v1/copies", ""},
	{"POST", "/v1/tokens/write", `{"token": "TOKEN", "volume": "c"}`},
	{"POST", "/v1/tokens/read", `{"token": "TOKEN", "length": 9}`},
	{"DELETE", "/v1/tokens/ID", ""},
	{"POST", "/v1/tokens", `{"volume": "v", "length": 8192, "providers": ["checksum"]}`},
	{"POST", "/v1/tokens/verify", `{"token": "TOKEN", "volume": "v"}`},
	{"POST", "/v1/tokens", `{"volume": "v", "length": 4096}`},
	{"POST", "/v1/tokens/revoke", `{"token": "TOKEN"}`},
	{"POST", "/v1/volumes/c/rename", `{"name": "d"}`},
	{"POST", "/v1/volumes/s/revert", `{}`},
	{"POST", "/v1/volumes/s/revert?force=true", `{"volume": "d"}`},
	{"DELETE", "/v1/volumes/d", ""},
	{"GET", "/v1/send?source=s", ""},
	{"POST", "/v1/receive?name=received", "STREAM"},
	{"DELETE", "/v1/partials/half", ""},
	{"GET", "/v1/partials", ""},
	{"GET", "/v1/files", ""},
	{"POST", "/v1/files", `{"name": "f", "size_bytes": 4096}`},
	{"POST", "/v1/files", `{"name": "g", "from": "v"}`},
	{"PATCH", "/v1/files/f", `{"size_bytes": 8192}`},
	{"POST", "/v1/files/f/token", `{"inactivity_seconds": 300}`},
	{"POST", "/v1/files/f/rename", `{"name": "g"}`},
	{"POST", "/v1/files/g/start", `{"size_bytes": 4096}`},
	{"PUT", "/v1/volumes/file:SCRATCH/data?offset=0", "bytes"},
	{"POST", "/v1/files/g/finish", `{"scratch": "SCRATCH", "overwrite": true}`},
	{"DELETE", "/v1/files/g", ""},
	{"POST", "/v1/disks", `{"operation": "from-volume", "source": "v", "destination": "v.vhdx"}`},
	{"GET", "/v1/files/v.vhdx/disk", ""},
	{"POST", "/v1/files/v.vhdx/disk/check", ""},
	{"GET", "/v1/config", ""},
	{"GET", "/v1/config/file", ""},
	{"POST", "/v1/config/compare", liveFile + "log: {level: warn}\n"},
	{"PUT", "/v1/config", liveFile + "log: {level: debug}\nlimits: {sessions: 7}\n"},
	{"POST", "/v1/reload", ""},
	{"GET", "/v1/targets", ""},
	{"POST", "/v1/targets", `{"name": "iqn.2026-11.example.odx:more", "luns": [{"lun": 0, "volume": "v"}, {"lun": 1, "volume": "s", "read_only": true}]}`},
	{"GET", "/v1/targets/iqn.2026-11.example.odx:more", ""},
	{"POST", "/v1/targets/iqn.2026-11.example.odx:more/luns", `{"lun": 2, "file": "v.vhdx"}`},
	{"DELETE", "/v1/targets/iqn.2026-11.example.odx:more/luns/1", ""},
	{"POST", "/v1/targets/iqn.2026-11.example.odx:more/users", `{"name": "bob", "secret": "secret-of-bob-00", "initiators": ["iqn.2026-11.example:*"]}`},
	{"POST", "/v1/targets/iqn.2026-11.example.odx:more/users", `{"name": "carol", "secret_file": "/etc/odx/carol"}`},
	{"PATCH", "/v1/targets/iqn.2026-11.example.odx:more/users/bob", `{"secret": "secret-of-bob-01", "initiators": []}`},
	{"DELETE", "/v1/targets/iqn.2026-11.example.odx:more/users/carol", ""},
	{"POST", "/v1/targets/iqn.2026-11.example.odx:more/access", `{"initiators": ["iqn.2026-11.example:*"]}`},
	{"POST", "/v1/targets/iqn.2026-11.example.odx:more/access", `{"addresses": ["192.0.2.0/24"], "luns": [{"lun": 2, "as": 0}], "at": 0}`},
	{"DELETE", "/v1/targets/iqn.2026-11.example.odx:more/access/1", ""},
	{"DELETE", "/v1/targets/iqn.2026-11.example.odx:more", ""},
	{"POST", "/v1/discovery/users", `{"name": "dave", "secret_env": "DAVE"}`},
	{"POST", "/v1/discovery/users", `{"name": "erin", "secret_env": "ERIN"}`},
	{"GET", "/v1/discovery", ""},
	{"PATCH", "/v1/discovery/users/dave", `{"secret_file": "/etc/odx/dave"}`},
	{"DELETE", "/v1/discovery/users/dave", ""},
	{"GET", "/v1/snapshots?volume=v", ""},
	{"GET", "/v1/snapshot-policies", ""},
	{"POST", "/v1/snapshot-policies/hourly/run", ""},
	{"POST", "/v1/snapshot-policies/hourly/prune?dry_run=true", ""},
	{"POST", "/v1/snapshot-policies/hourly/prune", ""},
	{"POST", "/v1/snapshot-policies/hourly/pause", ""},
	{"POST", "/v1/snapshot-policies/hourly/resume", ""},
	{"GET", "/v1/sessions", ""},
	{"GET", "/v1/luns", ""},
	{"DELETE", "/v1/sessions/7", ""},
	{"GET", "/v1/migrations", ""},
	{"POST", "/v1/migrations", `{"volume": "src", "to": "elsewhere"}`},
	{"POST", "/v1/migrations/src/abort", ""},
	{"POST", "/v1/migrations/src/finish", `{}`},
	{"POST", "/v1/replicas", `{"peer": "b", "source": "web", "name": "copy"}`},
	{"GET", "/v1/replicas", ""},
	{"GET", "/v1/replicas/copy", ""},
	{"POST", "/v1/replicas/copy/run", `{}`},
	{"PATCH", "/v1/replicas/copy", `{"paused": true}`},
	{"POST", "/v1/replicas/copy/failover", `{"force": true}`},
	{"POST", "/v1/replicas/copy/failback", `{"stay": true}`},
	{"DELETE", "/v1/replicas/copy?local=true", ""},
}

// varying are what differs from run to run, in lines and in responses.
var varying = []struct{ pattern, with string }{
	{`"time":"[^"]*"`, `"time":"…"`},
	{`"(id|created|last_used|expires|since|ended)":"[^"]*"`, `"$1":"…"`},
	{`"(pid|duration_ns)":\d+`, `"$1":…`},
	{`"uid":\d+`, `"uid":…`},
	{`"kind":"local","name":"[^"]*"`, `"kind":"local","name":"…"`},
	{`token [0-9a-f]{16}`, `token …`},
	{`\.part-[0-9A-Z]+`, `.part-…`},
}

func fixed(text string) string {
	for _, v := range varying {
		text = regexp.MustCompile(v.pattern).ReplaceAllString(text, v.with)
	}
	return text
}

// audited is a server whose changes are in a file.
type audited struct {
	log    *audit.Log
	live   *modelLive
	path   string
	client *Client
	seen   int // bytes of the file
}

func newAudited(t *testing.T, a admin.Administrator, dir string) *audited {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	log := audit.New(logs.Discard(), audit.Options{File: path})
	t.Cleanup(func() {
		if err := log.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s := serving(t, a)
	live := newModelLive(t, log)
	s.Audit, s.Live, s.Replicas = log, live, newModelReplicas()
	s.Audit, s.Live, s.Snapshots = log, live, func() (admin.SnapshotPolicies, error) { return modelPolicies{}, nil }
	return &audited{log: log, live: live, path: path, client: serveSocket(t, dir, NewServer(s))}
}

// next returns the lines since the last call.
func (a *audited) next(t *testing.T) string {
	t.Helper()
	a.log.Sync(t.Context())
	text, err := os.ReadFile(a.path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := string(text[a.seen:])
	a.seen = len(text)
	return lines
}

// names are what later samples refer to.
type names struct{ Token, ID, Name string }

func (n *names) in(s sample) sample {
	r := strings.NewReplacer("TOKEN", n.Token, "/ID", "/"+n.ID, "SCRATCH", n.Name, "STREAM", string(aStream()))
	return sample{s.method, r.Replace(s.path), r.Replace(s.body)}
}

// TestRoutes_Audit sends a request to every route: one that changes something has a line,
// with what was before and after; one that does not has none. No line has a token, which is
// the right to use it.
func TestRoutes_Audit(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 8192)
	a := newAudited(t, s.Admin(), dir)
	receiveHalf(t, s.Admin(), "half")
	var golden strings.Builder
	var made names
	asked := map[string]string{} // pattern of the route → lines
	for _, sample := range samples {
		sent := made.in(sample)
		if sample.path == "/v1/reload" {
			a.live.edited(liveFile + "log: {level: error}\nsnapshots: [{name: hourly, volumes: [v], every: 1h}]\n")
		}
		status, body := request(t, a.client, sent.method, sent.path, sent.body)
		if status/100 != 2 {
			t.Fatalf("%s %s: %d %s", sent.method, sent.path, status, body)
		}
		lines := a.next(t)
		asked[patternOf(t, sent.method, sent.path)] += lines
		if strings.Contains(lines, "secret-of") {
			t.Errorf("%s %s: a secret is in\n%s", sent.method, sent.path, lines)
		}
		fmt.Fprintf(&golden, "%s\n%s\n", strings.TrimSpace(sample.method+" "+sample.path+" "+sample.body), fixed(lines))
		if made.Token != "" && strings.Contains(lines, made.Token[:64]) {
			t.Errorf("%s %s: the token is in\n%s", sent.method, sent.path, lines)
		}
		if strings.Contains(body, `"token"`) || strings.HasSuffix(sent.path, "/start") {
			if err := json.Unmarshal([]byte(body), &made); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(body, `"token"`) && strings.Contains(lines, made.Token[:64]) {
				t.Errorf("%s %s: the token is in\n%s", sent.method, sent.path, lines)
			}
		}
	}
	for _, r := range allRoutes() {
		lines, sampled := asked[r.method+" "+r.path]
		switch mutates := !harmless[r.method+" "+r.path] && r.method != http.MethodGet; {
		case !sampled:
			t.Errorf("%s %s has no sample", r.method, r.path)
		case mutates && lines == "":
			t.Errorf("%s %s changes something, and has no line", r.method, r.path)
		case !mutates && lines != "":
			t.Errorf("%s %s changes nothing, and has a line: %s", r.method, r.path, lines)
		}
	}
	compareGolden(t, "audit.txt", golden.String())
	doc, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range allRoutes() {
		if r.change.what != "" && !r.change.live && !strings.Contains(string(doc), "`"+r.change.what+"`") {
			t.Errorf("docs/security.md does not list %q", r.change.what)
		}
	}
}

// harmless are the routes that change nothing although their method is not GET.
var harmless = map[string]bool{
	"POST /v1/store/check":             true,
	"POST /v1/config/compare":          true,
	"POST /v1/tokens/read":             true,
	"POST /v1/tokens/verify":           true,
	"POST /v1/files/{name}/disk/check": true,
	"POST /v1/volumes/{name}/flush":    true, // what was written has its own line
}

// patternOf returns the method and the path of the route of a request.
func patternOf(t *testing.T, method, path string) string {
	t.Helper()
	mux := http.NewServeMux()
	for _, r := range allRoutes() {
		mux.Handle(r.method+" "+r.path, http.NotFoundHandler())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://odx"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, pattern := mux.Handler(req)
	return pattern
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\n%s has\n%s", got, file, want)
	}
}

// TestAudit_Failed: a request that was refused before it tried anything has no line; one
// that failed has one, with why.
func TestAudit_Failed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a := newAudited(t, s.Admin(), dir)
	for name, tt := range map[string]struct {
		sample
		status int
		want   string
	}{
		"no JSON":       {sample{"POST", "/v1/volumes", "{"}, 400, ""},
		"no such route": {sample{"POST", "/v1/none", "{}"}, 404, ""},
		"exists": {sample{"POST", "/v1/volumes", `{"name": "src", "size_bytes": 4096}`}, 409,
			`{"version":1,"time":"…","what":"volume create","subject":"volume src","error":"volume src: already exists","by":{"kind":"local","name":"…","uid":…,"pid":…}}` + "\n"},
		"in use": {sample{"DELETE", "/v1/volumes/src", ""}, 409,
			`{"version":1,"time":"…","what":"volume delete","subject":"volume src","before":{"name":"src","id":"…","size_bytes":67108864,"read_only":false,"created":"…","luns":["iqn.2026-11.example.odx:disks/0"]},"error":"volume src: in use`},
		"data": {sample{"PUT", "/v1/volumes/none/data?offset=0", "x"}, 404,
			`{"version":1,"time":"…","what":"data write","subject":"volume none","after":{"offset":0,"length":1},"error":`},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := request(t, a.client, tt.method, tt.path, tt.body)
			if lines := fixed(a.next(t)); status != tt.status || !strings.HasPrefix(lines, tt.want) || (lines == "") != (tt.want == "") {
				t.Errorf("%d %s\nlines\n%s\nwant %d\n%s", status, body, lines, tt.status, tt.want)
			}
		})
	}
}
