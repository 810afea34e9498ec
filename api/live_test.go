package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"odx/admin"
	"odx/audit"
	"odx/blockdev"
	"odx/conf"
)

const liveFile = `# The configuration of a test.
data_dir: /srv/odx
portals: ["127.0.0.1:3260"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB} # the first
    authentication:
      users: [{name: alice, secret_file: /etc/odx/alice}]
`

// modelLive is a configuration without a server: its file is text, and a reload takes
// effect by being compared. It keeps the contract of admin.Live.
type modelLive struct {
	audit *audit.Log

	mu       sync.Mutex
	text     []byte
	cfg      *conf.Config
	sessions []admin.Session
	err      error // that every change gets
}

func newModelLive(t *testing.T, log *audit.Log) *modelLive {
	t.Helper()
	cfg, err := conf.Parse("/etc/odx/odx.yaml", []byte(liveFile))
	if err != nil {
		t.Fatal(err)
	}
	return &modelLive{
		audit: log, text: []byte(liveFile), cfg: cfg,
		sessions: []admin.Session{{
			Initiator: "iqn.2026-11.example:host", ISID: "00023d000001", TSIH: 7, Target: "iqn.2026-11.example.odx:disks", Addresses: []string{"192.0.2.1:51234"},
			Since: time.Date(2026, 11, 30, 21, 0, 0, 0, time.UTC), LUNs: []admin.SessionLUN{{Medium: "volume src", Over: []string{"src"}}},
		}},
	}
}

// edited is what an editor does to the file.
func (m *modelLive) edited(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text = []byte(text)
}

func (m *modelLive) Reload(ctx context.Context) (admin.Reloaded, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.become(ctx, "reload", m.text)
}

func (m *modelLive) PutConfig(ctx context.Context, text []byte, basedOn string) (admin.Reloaded, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if basedOn != "" && basedOn != admin.Digest(m.text) {
		return admin.Reloaded{}, conf.ErrChanged
	}
	return m.become(ctx, "put configuration", text)
}

func (m *modelLive) EditConfig(ctx context.Context, edits ...conf.Edit) (admin.Reloaded, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := conf.Apply(m.cfg.File, m.text, edits...)
	if err != nil {
		return admin.Reloaded{}, err
	}
	return m.become(ctx, "edit configuration", text)
}

// become makes text the configuration. The caller holds mu.
func (m *modelLive) become(ctx context.Context, what string, text []byte) (admin.Reloaded, error) {
	if m.err != nil {
		return admin.Reloaded{}, m.err
	}
	next, err := conf.Parse(m.cfg.File, text)
	if err != nil {
		return admin.Reloaded{}, err
	}
	changes := conf.Diff(m.cfg, next)
	restart := slices.DeleteFunc(slices.Clone(changes), func(c conf.Change) bool { return c.Class != conf.NeedsRestart })
	if len(restart) > 0 {
		return admin.Reloaded{}, &admin.NeedsRestartError{Changes: restart}
	}
	m.text, m.cfg = bytes.Clone(text), next
	for _, c := range changes {
		m.audit.Record(ctx, audit.Change{What: what, Subject: c.Key, Before: c.Before, After: c.After})
	}
	return admin.Reloaded{Changes: changes, Took: 3 * time.Millisecond, LockedFor: 5 * time.Microsecond}, nil
}

func (m *modelLive) CompareConfig(_ context.Context, text []byte) ([]conf.Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next, err := conf.Parse(m.cfg.File, text)
	if err != nil {
		return nil, err
	}
	return conf.Diff(m.cfg, next), nil
}

func (m *modelLive) Config(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg.Effective()
}

func (m *modelLive) ConfigFile(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.text), nil
}

func (m *modelLive) Sessions(context.Context) ([]admin.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sessions), nil
}

func (m *modelLive) EndSession(ctx context.Context, tsih uint16) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.audit.Record(ctx, audit.Change{What: "end session", Subject: fmt.Sprintf("session %d", tsih)})
	n := len(m.sessions)
	m.sessions = slices.DeleteFunc(m.sessions, func(s admin.Session) bool { return s.TSIH == tsih })
	if len(m.sessions) == n {
		return fmt.Errorf("session %d: %w", tsih, admin.ErrNoSession)
	}
	return nil
}

func (m *modelLive) LUNStats(context.Context) ([]admin.LUNStats, error) {
	read := admin.Counters{Read: admin.KindCounters{Commands: 3, Bytes: 12288, Latency: []admin.LatencyCount{{UpTo: 128 * time.Microsecond, Count: 2}, {Count: 1}}}}
	return []admin.LUNStats{{
		LUNName: admin.LUNName{Target: "iqn.2026-11.example.odx:disks", Medium: "volume src"}, Since: time.Date(2026, 11, 30, 21, 0, 0, 0, time.UTC), Total: read,
		Initiators: []admin.InitiatorStats{{Initiator: "iqn.2026-11.example:host", Total: read}},
	}}, nil
}

// eachLive runs a test with a model, and with a Client of a server of it.
func eachLive(t *testing.T, test func(t *testing.T, m *modelLive, l admin.Live)) {
	t.Run("model", func(t *testing.T) {
		m := newModelLive(t, serving(t, nil).Audit)
		test(t, m, m)
	})
	t.Run("client", func(t *testing.T) {
		s := serving(t, nil)
		m := newModelLive(t, s.Audit)
		s.Live = m
		test(t, m, serveSocket(t, t.TempDir(), NewServer(s)))
	})
}

// TestClient_EditConfig sends each edit: the file is what it is without a server between.
func TestClient_EditConfig(t *testing.T) {
	const disks = "iqn.2026-11.example.odx:disks"
	access := conf.Access{
		Initiators: []conf.NamePattern{"iqn.2026-11.example:*"}, Addresses: prefixes(t, "192.0.2.0/24", "2001:db8::1/128"),
		LUNs: []conf.MappedLUN{{LUN: 0, As: 3, ReadOnly: true}, {LUN: 9, As: 9}}, ReadOnly: true, StoreDuplicates: true,
	}
	lun := conf.LUN{Number: 9, Volume: "data", Size: 1 << 30, BlockSize: 4096, ReadOnly: true, StoreDuplicates: true, UnmapGranularity: 65536,
		Rate: conf.Rate{IOPS: 100, IOPSBurst: 200, BytesPerSecond: 1 << 20, BytesBurst: 1 << 21}}
	dots := []conf.Edit{
		conf.AddUser{Target: disks, User: conf.User{Name: "..", Secret: conf.EnvSecret("X")}}, conf.RemoveUser{Target: disks, Name: ".."},
		conf.AddUser{Target: disks, User: conf.User{Name: "a/b?c#d%e f", Secret: conf.EnvSecret("X")}}, conf.RemoveUser{Target: disks, Name: "a/b?c#d%e f"},
	}
	for name, edits := range map[string][]conf.Edit{
		"target":            {conf.AddTarget{Name: "iqn.2026-11.example.odx:more", LUNs: []conf.LUN{lun}, PortalGroups: []uint16{1}}, conf.RemoveTarget{Name: "iqn.2026-11.example.odx:more"}},
		"target, one way":   {conf.AddTarget{Name: "iqn.2026-11.example.odx:more", LUNs: []conf.LUN{lun}}},
		"LUN":               {conf.AddLUN{Target: disks, LUN: lun}},
		"LUN, there and":    {conf.AddLUN{Target: disks, LUN: lun}, conf.RemoveLUN{Target: disks, Number: 9}},
		"file":              {conf.AddLUN{Target: disks, LUN: conf.LUN{Number: 16383, File: "a/b.vhdx", BlockSize: 512}}},
		"backing":           {conf.AddLUN{Target: disks, LUN: conf.LUN{Number: 1, Backing: "/srv/x", BlockSize: 512}}},
		"user":              {conf.AddUser{Target: disks, User: conf.User{Name: "bob", Secret: conf.FileSecret("/etc/odx/bob"), Initiators: []conf.NamePattern{"iqn.2026-11.example:*"}}}},
		"user, inline":      {conf.AddUser{Target: disks, User: conf.User{Name: "bob", Secret: conf.InlineSecret("0123456789abcdef")}}},
		"user of discovery": {conf.AddUser{User: conf.User{Name: "bob", Secret: conf.EnvSecret("BOB")}}, conf.SetUser{Name: "bob", Secret: new(conf.FileSecret("/etc/odx/bob"))}},
		"user, another":     {conf.SetUser{Target: disks, Name: "alice", Secret: new(conf.EnvSecret("ALICE")), Initiators: &[]conf.NamePattern{"iqn.2026-11.example:a"}}},
		"user, for all":     {conf.SetUser{Target: disks, Name: "alice", Initiators: &[]conf.NamePattern{}}},
		"user, removed":     {conf.AddUser{Target: disks, User: conf.User{Name: "bob", Secret: conf.EnvSecret("BOB")}}, conf.RemoveUser{Target: disks, Name: "alice"}},
		"names of dots":     dots,
		"access":            {conf.AddLUN{Target: disks, LUN: lun}, conf.AddAccess{Target: disks, Access: access, At: -1}, conf.AddAccess{Target: disks, Access: conf.Access{Addresses: prefixes(t, "192.0.2.7/32")}, At: 0}, conf.RemoveAccess{Target: disks, Index: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			texts := map[string]string{}
			eachLive(t, func(t *testing.T, m *modelLive, l admin.Live) {
				for _, e := range edits {
					if _, err := l.EditConfig(t.Context(), e); err != nil {
						t.Fatalf("%+v: %v", e, err)
					}
				}
				texts[t.Name()[strings.LastIndex(t.Name(), "/"):]] = string(m.text)
			})
			if texts["/client"] != texts["/model"] {
				t.Errorf("over the API the file is\n%s\nwithout it\n%s", texts["/client"], texts["/model"])
			}
		})
	}
	t.Run("several at once", func(t *testing.T) {
		eachLive(t, func(t *testing.T, m *modelLive, l admin.Live) {
			done, err := l.EditConfig(t.Context(), conf.AddLUN{Target: disks, LUN: lun}, conf.RemoveLUN{Target: disks, Number: 0})
			if err != nil || len(done.Changes) == 0 || strings.Contains(string(m.text), "src") || !strings.Contains(string(m.text), "# The configuration of a test") {
				t.Errorf("%+v, %v\n%s", done, err, m.text)
			}
		})
	})
}

// TestLive_Errors: the cause of an error is known on either side of the socket.
func TestLive_Errors(t *testing.T) {
	eachLive(t, func(t *testing.T, m *modelLive, l admin.Live) {
		ctx := t.Context()
		const disks = "iqn.2026-11.example.odx:disks"
		for name, tt := range map[string]struct {
			do    func() error
			cause error // that the model fails with; nil for its own
			want  error
		}{
			"read-only":      {func() error { _, err := l.Reload(ctx); return err }, conf.ErrReadOnly, conf.ErrReadOnly},
			"rescue":         {func() error { _, err := l.Reload(ctx); return err }, admin.ErrRescue, admin.ErrRescue},
			"handing over":   {func() error { _, err := l.Reload(ctx); return err }, admin.ErrChanging, admin.ErrChanging},
			"changed before": {func() error { _, err := l.PutConfig(ctx, m.text, admin.Digest([]byte("another"))); return err }, nil, conf.ErrChanged},
			"changed during": {func() error { _, err := l.PutConfig(ctx, m.text, ""); return err }, conf.ErrChanged, conf.ErrChanged},
			"exists": {func() error {
				_, err := l.EditConfig(ctx, conf.AddLUN{Target: disks, LUN: conf.LUN{Volume: "x", BlockSize: 512}})
				return err
			}, nil, conf.ErrExists},
			"no entry":   {func() error { _, err := l.EditConfig(ctx, conf.RemoveLUN{Target: disks, Number: 9}); return err }, nil, conf.ErrNotFound},
			"no session": {func() error { return l.EndSession(ctx, 9) }, nil, admin.ErrNoSession},
		} {
			m.err = tt.cause
			if err := tt.do(); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
		}
		m.err = nil
		_, err := l.PutConfig(ctx, []byte("data_dir: [a]\nportals: 7\n"), "")
		var problems conf.Problems
		if !errors.As(err, &problems) || len(problems) < 3 || problems[0].File != "/etc/odx/odx.yaml" || problems[1].Line != 1 || problems[1].Key != "data_dir" {
			t.Errorf("problems: %#v", err)
		}
		if got := err.Error(); strings.Count(got, "\n") != len(problems)-1 {
			t.Errorf("not one problem a line:\n%s", got)
		}
		_, err = l.PutConfig(ctx, []byte(strings.Replace(liveFile, "/srv/odx", "/srv/other", 1)), "")
		var restart *admin.NeedsRestartError
		if !errors.As(err, &restart) || len(restart.Changes) != 1 || restart.Changes[0].Key != "data_dir" || restart.Changes[0].Class != conf.NeedsRestart || restart.Changes[0].Why == "" {
			t.Errorf("needs a restart: %#v", err)
		}
	})
}

// TestFailureOf: errors that a configuration adds, and what a client makes of them.
func TestFailureOf(t *testing.T) {
	problem := conf.Problem{File: "odx.yaml", Line: 3, Key: "portals[1]", Message: "in use"}
	for name, tt := range map[string]struct {
		err    error
		status int
		kind   string
		is     error // on the other side
	}{
		"no room for the file": {fmt.Errorf("replace odx.yaml: %w", unix.ENOSPC), http.StatusInsufficientStorage, "no_space", blockdev.ErrNoSpace},
		"one problem":          {fmt.Errorf("prepare: %w", problem), http.StatusBadRequest, "invalid_configuration", nil},
		"problems, joined":     {errors.Join(problem, conf.Problems{problem, problem}), http.StatusBadRequest, "invalid_configuration", nil},
		"logged in":            {fmt.Errorf("volume v: %w", admin.ErrLoggedIn), http.StatusConflict, "logged_in", admin.ErrInUse},
	} {
		f, status := failureOf(tt.err)
		back := errorOf(&f)
		if status != tt.status || f.Kind != tt.kind || tt.is != nil && !errors.Is(back, tt.is) {
			t.Errorf("%s: %d %+v, %v", name, status, f, back)
		}
		if problems := problemsOf(tt.err); len(problems) != len(problemsOf(back)) {
			t.Errorf("%s: problems %v, of %v", name, back, problems)
		}
	}
}

// TestLive_Answers: what the client returns is what the server's Live does.
func TestLive_Answers(t *testing.T) {
	answers := map[string][]any{}
	eachLive(t, func(t *testing.T, m *modelLive, l admin.Live) {
		ctx := t.Context()
		next := []byte(liveFile + "log: {level: debug}\n")
		var got []any
		add := func(answer any, err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
			got = append(got, answer)
		}
		text, err := l.Config(ctx)
		add(string(text), err)
		compared, err := l.CompareConfig(ctx, next)
		add(compared, err)
		done, err := l.PutConfig(ctx, next, admin.Digest(m.text))
		add(done, err)
		text, err = l.ConfigFile(ctx)
		add(string(text), err)
		done, err = l.Reload(ctx)
		add(done, err)
		sessions, err := l.Sessions(ctx)
		add(sessions, err)
		stats, err := l.LUNStats(ctx)
		add(stats, err)
		add(nil, l.EndSession(ctx, 7))
		answers[t.Name()[strings.LastIndex(t.Name(), "/"):]] = got
	})
	for i, want := range answers["/model"] {
		if got := answers["/client"][i]; !reflect.DeepEqual(got, want) {
			t.Errorf("answer %d over the API\n%+v\nwithout it\n%+v", i, got, want)
		}
	}
}

// TestLive_IfMatch: of two administrators who change the same text, the second one is
// refused.
func TestLive_IfMatch(t *testing.T) {
	s := serving(t, nil)
	m := newModelLive(t, s.Audit)
	s.Live = m
	url, _ := serveTCP(t, newServer(s, anyone{administers}))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	put := func(match, text string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url+"/v1/config", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if match != "" {
			req.Header.Set("If-Match", match)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	_, _, header := send(t, client, http.MethodGet, url+"/v1/config/file", "")
	first := header.Get("ETag")
	one, two := liveFile+"log: {level: debug}\n", liveFile+"log: {level: warn}\n"
	resp := put(first, one)
	if second := resp.Header.Get("ETag"); resp.StatusCode != http.StatusOK || second != etagOf([]byte(one)) || second == first {
		t.Errorf("the first one: %s, ETag %s", resp.Status, second)
	}
	if resp := put(first, two); resp.StatusCode != http.StatusPreconditionFailed || string(m.text) != one {
		t.Errorf("the second one: %s\n%s", resp.Status, m.text)
	}
	for match, want := range map[string]int{
		etagOf([]byte(one)): http.StatusOK, "*": http.StatusOK, "": http.StatusOK, `W/"a"`: http.StatusBadRequest, `"a", "b"`: http.StatusBadRequest, `""`: http.StatusBadRequest, "a": http.StatusBadRequest,
	} {
		if resp := put(match, one); resp.StatusCode != want {
			t.Errorf("If-Match %s: %s, want %d", match, resp.Status, want)
		}
	}
}

// TestServer_Path: a path that is not canonical is no other resource, also for a client
// that would follow a redirect.
func TestServer_Path(t *testing.T) {
	s := serving(t, nil)
	m := newModelLive(t, s.Audit)
	s.Live = m
	url, _ := serveTCP(t, newServer(s, anyone{administers}))
	for _, path := range []string{
		"/v1/targets/" + disksTarget + "/users/..", "/v1/targets/" + disksTarget + "/users/../", "/v1//targets/" + disksTarget, "/v1/./targets/" + disksTarget,
		"//v1/targets/" + disksTarget, "/v1/targets/" + disksTarget + "/",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "DELETE %s HTTP/1.1\r\nHost: odx\r\nConnection: close\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		conn.Close()
		if resp.StatusCode != http.StatusNotFound || string(m.text) != liveFile {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// TestLive_None: a server whose configuration does not change says so.
func TestLive_None(t *testing.T) {
	client := serveSocket(t, t.TempDir(), NewServer(serving(t, nil)))
	if _, err := client.Reload(t.Context()); !errors.Is(err, errNotLive) {
		t.Error(err)
	}
	c := NewClient(t.TempDir())
	defer c.Close()
	if _, err := c.Reload(t.Context()); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("no server: %v", err)
	}
}

func prefixes(t *testing.T, list ...string) (all []netip.Prefix) {
	t.Helper()
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}
