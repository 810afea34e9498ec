package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/audit"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/replica"
	"odx/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open starts a service with a store in dir, which has one volume of 64 MiB as
// a LUN, some of it written.
func open(t *testing.T, dir string) *target.Service {
	t.Helper()
	return openWith(t, dir, "[{lun: 0, volume: src, size: 64MiB}]")
}

// openWith is open with other LUNs.
func openWith(t *testing.T, dir, luns string) *target.Service {
	t.Helper()
	cfg, err := conf.Parse("odx.yaml", fmt.Appendf(nil, `data_dir: %s
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns: %s
`, dir, luns))
	if err != nil {
		t.Fatal(err)
	}
	s, err := target.Start(t.Context(), cfg, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil && !errors.Is(err, blockdev.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

// content is different in each block of 4096 bytes.
func content(n int) []byte {
	p := make([]byte, 0, n)
	for len(p) < n {
		p = fmt.Appendf(p, "%-64d", len(p))
	}
	return p[:n]
}

func fill(t *testing.T, s *target.Service, n int) {
	t.Helper()
	v, err := s.Admin().Backstore().Volume("src")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(t.Context(), content(n), 4096); err != nil {
		t.Fatal(err)
	}
}

// serving is what a server of a test serves; its changes are discarded.
func serving(t *testing.T, a admin.Administrator) Serving {
	t.Helper()
	changes := audit.New(logs.Discard(), audit.Options{})
	t.Cleanup(func() {
		if err := changes.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s := Serving{Administrator: a, Audit: changes, Log: logs.Discard()}
	if store, ok := a.(*admin.Store); ok {
		s.Streams = replica.NewStreams(store, logs.Discard())
	}
	return s
}

// anyone admits every request, in the role.
type anyone struct{ role role }

func (a anyone) admit(*http.Request) (caller, error) { return caller{role: a.role}, nil }

// serve serves the API of a store in dir until the test ends, and returns a client.
func serve(t *testing.T, dir string, s *target.Service) (*Server, *Client) {
	t.Helper()
	server := NewServer(serving(t, s.Admin()))
	return server, serveSocket(t, dir, server)
}

// serveSocket serves on the socket in dir until the test ends, and returns a client.
func serveSocket(t *testing.T, dir string, server *Server) *Client {
	t.Helper()
	server.ServeSocket(dir)
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	client := NewClient(dir)
	t.Cleanup(client.Close)
	return client
}

// eachAdministrator runs a test with the store, and with a Client.
func eachAdministrator(t *testing.T, test func(t *testing.T, s *target.Service, dir string, a admin.Administrator)) {
	t.Run("store", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		test(t, s, dir, s.Admin())
	})
	t.Run("client", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		_, client := serve(t, dir, s)
		test(t, s, dir, client)
	})
}

func TestStore(t *testing.T) {
	short := t.TempDir()
	for name, dir := range map[string]string{
		"short path":                          short,
		"a path longer than a socket address": filepath.Join(t.TempDir(), strings.Repeat("d", 120)),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, dir)
			fill(t, s, 8192)
			_, client := serve(t, dir, s)
			got, err := client.StoreInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Volumes) != 1 || got.Volumes[0].Name != "src" || got.Volumes[0].SizeBytes != 64<<20 || got.LogicalBytes != 8192 {
				t.Errorf("got %+v", got)
			}
			want, err := s.Admin().StoreInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// What is free on the file system changes between the two.
			got.FreeBytes, got.HostFreeBytes, got.WarnBytes = want.FreeBytes, want.HostFreeBytes, want.WarnBytes
			if a, b := encode(t, got), encode(t, want); a != b {
				t.Errorf("over the socket %s\nfrom the store %s", a, b)
			}
			info, err := os.Stat(filepath.Join(dir, socketName))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the socket's mode is %v (%v)", info.Mode(), err)
			}
		})
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestVolumes(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		made, err := a.CreateVolume(ctx, "made", 1<<20)
		if err != nil || made.Name != "made" || made.SizeBytes != 1<<20 || made.ReadOnly || len(made.LUNs) != 0 || made.Created.IsZero() {
			t.Errorf("made %+v, %v", made, err)
		}
		if v, err := a.ResizeVolume(ctx, "made", 2<<20); err != nil || v.SizeBytes != 2<<20 || v.ID != made.ID {
			t.Errorf("resized %+v, %v", v, err)
		}
		if v, err := a.SnapshotVolume(ctx, "src", "snap"); err != nil || v.Origin != "src" || !v.ReadOnly || v.SizeBytes != 64<<20 {
			t.Errorf("snapshot %+v, %v", v, err)
		}
		if v, err := a.CloneVolume(ctx, "snap", "clone"); err != nil || v.Origin != "snap" || v.ReadOnly {
			t.Errorf("clone %+v, %v", v, err)
		}
		if err := a.DeleteVolume(ctx, "made"); err != nil {
			t.Error(err)
		}
		all, err := a.Volumes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range all {
			names = append(names, fmt.Sprint(v.Name, v.LUNs))
		}
		if got, want := strings.Join(names, " "), "clone[] snap[] src[iqn.2026-11.example.odx:disks/0]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestErrors: the cause of an error is known on either side of the socket, and
// its text is the same.
func TestErrors(t *testing.T) {
	texts := map[string]string{}
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		if _, err := a.SnapshotVolume(ctx, "src", "snap"); err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			do   func() error
			want error
		}{
			"taken":         {func() error { _, err := a.CreateVolume(ctx, "src", 1<<20); return err }, backstore.ErrExists},
			"bad name":      {func() error { _, err := a.CreateVolume(ctx, "a b", 1<<20); return err }, blockdev.ErrInvalid},
			"bad size":      {func() error { _, err := a.CreateVolume(ctx, "x", -1); return err }, blockdev.ErrInvalid},
			"no volume":     {func() error { return a.DeleteVolume(ctx, "none") }, backstore.ErrNotFound},
			"odd name":      {func() error { return a.DeleteVolume(ctx, "a/../b?c#d%e") }, backstore.ErrNotFound},
			"path as name":  {func() error { return a.DeleteVolume(ctx, "..") }, backstore.ErrNotFound},
			"no name":       {func() error { return a.DeleteVolume(ctx, "") }, backstore.ErrNotFound},
			"in use":        {func() error { return a.DeleteVolume(ctx, "src") }, admin.ErrInUse},
			"read-only":     {func() error { _, err := a.ResizeVolume(ctx, "snap", 128<<20); return err }, blockdev.ErrReadOnly},
			"negative rate": {func() error { _, err := a.Scrub(ctx, admin.ScrubRequest{BytesPerSecond: -1}, nil); return err }, blockdev.ErrInvalid},
		} {
			err := tt.do()
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
				continue
			}
			if first, ok := texts[name]; ok && err.Error() != first {
				t.Errorf("%s: %q, and locally %q", name, err, first)
			}
			texts[name] = err.Error()
		}
		if err := s.Admin().Backstore().Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.StoreInfo(ctx); !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("closed store: %v", err)
		}
	})
}

func TestErrorUnknownToTheClient(t *testing.T) {
	err := &Error{Kind: "later version", Message: "so it is"}
	if err.Unwrap() != nil || err.Error() != "so it is" {
		t.Errorf("%v, %v", err, err.Unwrap())
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	client := NewClient(dir)
	defer client.Close()
	if _, err := client.StoreInfo(t.Context()); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("no socket: got %v", err)
	}
	if _, err := client.Scrub(t.Context(), admin.ScrubRequest{}, nil); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("no socket: got %v", err)
	}

	// A socket that a dead server left.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, socketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := client.StoreInfo(t.Context()); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("dead socket: got %v", err)
	}
	serve(t, dir, open(t, dir))
	if _, err := client.StoreInfo(t.Context()); err != nil {
		t.Errorf("in place of a dead socket: %v", err)
	}
}

// roundTrip sends a request as it stands and returns status code and body.
func request(t *testing.T, c *Client, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://odx"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestBadRequests(t *testing.T) {
	dir := t.TempDir()
	_, client := serve(t, dir, open(t, dir))
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		kind, words        string
	}{
		"unknown path":   {"GET", "/v1/nothing", "", 404, "no_resource", "no such resource: GET /v1/nothing"},
		"unknown method": {"PUT", "/v1/store", "", 404, "no_resource", "no such resource: PUT /v1/store"},
		"no parameters":  {"POST", "/v1/volumes", "", 400, "invalid", "EOF"},
		"not JSON":       {"POST", "/v1/volumes", "{", 400, "invalid", "unexpected EOF"},
		"unknown key":    {"POST", "/v1/volumes", `{"nmae": "x"}`, 400, "invalid", `unknown field \"nmae\"`},
		"wrong type":     {"POST", "/v1/volumes", `{"name": 5}`, 400, "invalid", "cannot unmarshal number"},
		"two values":     {"POST", "/v1/volumes", `{} {}`, 400, "invalid", "more than one value"},
		"not a boolean":  {"DELETE", "/v1/files/a?force=1", "", 400, "invalid", `force is \"1\"; use true or false`},
		"long body":      {"POST", "/v1/volumes", strings.Repeat(" ", maxParameters+1), 413, "too_large", "at most 65536"},
	} {
		status, body := request(t, client, tt.method, tt.path, tt.body)
		var f v1.Failure
		if err := json.Unmarshal([]byte(body), &f); err != nil || status != tt.status || f.Kind != tt.kind || !strings.Contains(body, tt.words) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

// TestRoutes: what a program that is not ours relies on.
func TestRoutes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, client := serve(t, dir, s)
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/volumes", `{"name": "v", "size_bytes": 1048576}`, 201, `{"name":"v","id":"*","size_bytes":1048576,"read_only":false,"created":"*","luns":[]}`},
		{"PATCH", "/v1/volumes/v", `{"size_bytes": 2097152}`, 200, `{"name":"v","id":"*","size_bytes":2097152,"read_only":false,"created":"*","luns":[]}`},
		{"POST", "/v1/volumes/v/snapshot", `{"name": "s"}`, 201, `{"name":"s","id":"*","size_bytes":2097152,"read_only":true,"origin":"v","created":"*","luns":[]}`},
		{"POST", "/v1/volumes/s/clone", `{"name": "c"}`, 201, `{"name":"c","id":"*","size_bytes":2097152,"read_only":false,"origin":"s","created":"*","luns":[]}`},
		{"DELETE", "/v1/volumes/c", "", 204, ""},
		{"GET", "/v1/store/exclusive", "", 200, `{"s":0,"src":0,"v":0}`},
		{"POST", "/v1/store/check", "", 200, `{"sound":true,"findings":[]}`},
		{"POST", "/v1/store/clean", "", 200, `{"freed_bytes":0,"physical_bytes":0}`},
		{"POST", "/v1/store/scrub", "{}", 200, `{"progress":{"total_bytes":0,"read_bytes":0,"damaged_extents":0}}` + "\n" +
			`{"result":{"total_bytes":0,"read_bytes":0,"damaged_extents":0,"damages":[]}}`},
		{"DELETE", "/v1/volumes/src", "", 409, `{"kind":"in_use","error":"volume src: in use as LUN 0 of iqn.2026-11.example.odx:disks; take that out of the configuration (odx.yaml, line 5), reload odx serve if it runs, and try again"}`},
	} {
		status, body := request(t, client, tt.method, tt.path, tt.body)
		if got := strings.TrimSpace(mask(body, "id", "created")); status != tt.status || got != tt.want {
			t.Errorf("%s %s: %d\n%s\nwant %d\n%s", tt.method, tt.path, status, got, tt.status, tt.want)
		}
	}
}

// mask replaces the texts of some keys by an asterisk.
func mask(text string, keys ...string) string {
	for _, key := range keys {
		before, after, ok := strings.Cut(text, `"`+key+`":"`)
		if ok {
			_, rest, _ := strings.Cut(after, `"`)
			text = before + `"` + key + `":"*"` + rest
		}
	}
	return text
}

// TestScrubAndCheckOfDamage flips a bit of the stored data, and then of the map.
func TestScrubAndCheckOfDamage(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, dir string, a admin.Administrator) {
		ctx := t.Context()
		fill(t, s, 1<<20)
		damage(t, dir, content(1 << 20)[5*4096:][:64])
		progress := 0
		r, err := a.Scrub(ctx, admin.ScrubRequest{BytesPerSecond: 100 << 20}, func(backstore.ScrubProgress) { progress++ })
		if err != nil || progress == 0 {
			t.Fatalf("%d times progress, %v", progress, err)
		}
		if r.ReadBytes != 1<<20 || r.Damaged != 1 || len(r.Damages) != 1 || len(r.Damages[0].Uses) != 1 {
			t.Fatalf("got %+v", r)
		}
		if got, want := r.Damages[0].Uses[0], (backstore.Use{Volume: "src", Offset: 6 * 4096, Length: 4096}); got != want {
			t.Errorf("used as %+v, want %+v", got, want)
		}
		if c, err := a.Check(ctx); err != nil || !c.Sound {
			t.Errorf("check, which reads no data: %+v, %v", c, err)
		}
		// A segment that is too short.
		files, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		if err := os.Truncate(files[0], 8192); err != nil {
			t.Fatal(err)
		}
		c, err := a.Check(ctx)
		if err != nil || c.Sound || len(c.Findings) != 255 || c.Findings[0] != "extent 2 has 1 blocks at segment 00000001 block 2, which has 2" {
			t.Errorf("check of a short segment: %d findings, %v", len(c.Findings), err)
		}
	})
}

// damage flips a bit of the stored data that begins like this.
func damage(t *testing.T, dir string, like []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(data, like); at >= 0 {
			data[at] ^= 1
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the data is nowhere in the segments")
}

func TestCleanGivesSpaceBack(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, s *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		fill(t, s, 4<<20)
		v, err := s.Admin().Backstore().Volume("src")
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Unmap(ctx, 4096, 3<<20); err != nil {
			t.Fatal(err)
		}
		before, err := a.StoreInfo(ctx)
		if err != nil || before.ReclaimableBytes != 3<<20 || before.LiveBytes != 1<<20 {
			t.Errorf("before: %+v, %v", before.Stats, err)
		}
		r, err := a.Clean(ctx)
		if err != nil || r.FreedBytes != 3<<20 || r.PhysicalBytes != 1<<20+4096 {
			t.Errorf("cleaning: %+v, %v", r, err)
		}
		after, err := a.StoreInfo(ctx)
		if err != nil || after.ReclaimableBytes != 0 {
			t.Errorf("after: %+v, %v", after.Stats, err)
		}
	})
}

// TestClientGoesAway: a scrub ends when its client disconnects.
func TestClientGoesAway(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 4<<20)
	server, client := serve(t, dir, s)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := client.Scrub(ctx, admin.ScrubRequest{BytesPerSecond: 1}, func(backstore.ScrubProgress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	server.calls.Wait() // for years, at one byte a second
}

// TestShutdownEndsLongRequests: their clients get an error.
func TestShutdownEndsLongRequests(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 4<<20)
	server, client := serve(t, dir, s)
	var stopped chan error
	_, err := client.Scrub(t.Context(), admin.ScrubRequest{BytesPerSecond: 1}, func(backstore.ScrubProgress) {
		if stopped == nil {
			stopped = make(chan error, 1)
			go func() { stopped <- server.Shutdown(context.Background()) }()
		}
	})
	var e *Error
	if !errors.As(err, &e) || e.Kind != "canceled" {
		t.Errorf("the client got %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := client.StoreInfo(t.Context()); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("after it: %v", err)
	}
	// The clean-up of the test shuts down a second time.
}
