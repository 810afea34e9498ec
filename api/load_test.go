package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "odx/api/v1"
	"odx/quota"
)

// patience is how long a test waits for what has to happen.
const patience = 10 * time.Second

// TestServer_ShareMemory: a request waits for memory, unread; one that needs none does
// not.
func TestServer_ShareMemory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	memory := quota.New(maxData)
	server := NewServer(serving(t, s.Admin()))
	server.ShareMemory(memory)
	client := serveSocket(t, dir, server)
	if err := memory.Take(t.Context(), "another", maxData); err != nil {
		t.Fatal(err)
	}
	put := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://odx/v1/volumes/src/data?offset=0", bytes.NewReader(content(maxData)))
		if err != nil {
			return err
		}
		resp, err := client.http.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
	done := make(chan error, 2)
	gone, leave := context.WithCancel(t.Context())
	for _, ctx := range []context.Context{gone, t.Context()} {
		go func() { done <- put(ctx) }()
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("status: %v", err)
	}
	leave()
	if err := <-done; err == nil {
		t.Error("a request was answered without memory")
	}
	if held := memory.Held(); held != maxData {
		t.Errorf("%d bytes are held", held)
	}
	memory.Release("another", maxData)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the request still waits")
	}
	got := make([]byte, maxData)
	if err := client.ReadVolume(t.Context(), "src", got, 0); err != nil || !bytes.Equal(got, content(maxData)) {
		t.Errorf("something else was written, %v", err)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if held := memory.Held(); held != 0 {
		t.Errorf("%d bytes are held at the end", held)
	}
}

// TestServer_Shutdown_waitingForMemory: a request that waits for memory ends with the
// server, with an answer.
func TestServer_Shutdown_waitingForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := quota.New(maxData)
		if err := memory.Take(t.Context(), "another", maxData); err != nil {
			t.Fatal(err)
		}
		server := NewServer(serving(t, nil))
		server.ShareMemory(memory)
		answer := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			server.http.Handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/v1/volumes", nil))
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatalf("status %d without memory", answer.Code)
		default:
		}
		server.stop()
		<-done
		if answer.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d", answer.Code)
		}
		if held := memory.Held(); held != maxData {
			t.Errorf("%d bytes are held", held)
		}
	})
}

// countedListener counts the connections that were accepted.
type countedListener struct {
	net.Listener
	accepted atomic.Int32
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// serveTCP serves on a port of this machine until the test ends.
func serveTCP(t *testing.T, server *Server) (url string, l *countedListener) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = &countedListener{Listener: inner}
	go server.Serve(l)
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return "http://" + inner.Addr().String(), l
}

// TestServer_Serve_bound: a client beyond the bound is accepted when another one has
// disconnected.
func TestServer_Serve_bound(t *testing.T) {
	s := open(t, t.TempDir())
	url, l := serveTCP(t, newServer(serving(t, s.Admin()), anyone{administers}))
	var clients []net.Conn
	for range maxConnections {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	answered := make(chan error, 1)
	go func() {
		resp, err := http.Get(url + "/v1/status")
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	// A client that was accepted is answered; the last one is not accepted by then.
	last := clients[maxConnections-1]
	fmt.Fprint(last, "GET /v1/status HTTP/1.1\r\nHost: odx\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(last), nil); err != nil {
		t.Fatal(err)
	}
	if n := l.accepted.Load(); n != maxConnections {
		t.Errorf("%d clients were accepted", n)
	}
	clients[0].Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestServer_bodyTooLarge: a body beyond the bound of its request is refused, whether its
// length is announced or not, and takes no memory.
func TestServer_bodyTooLarge(t *testing.T) {
	s := open(t, t.TempDir())
	server := newServer(serving(t, s.Admin()), anyone{administers})
	url, _ := serveTCP(t, server)
	for name, tt := range map[string]struct {
		method, path string
		body         int
		want         int
	}{
		"parameters":              {http.MethodPost, "/v1/volumes", maxParameters + 1, http.StatusRequestEntityTooLarge},
		"parameters at the bound": {http.MethodPost, "/v1/volumes", maxParameters, http.StatusCreated},
		"data":                    {http.MethodPut, "/v1/volumes/src/data?offset=0", maxData + 1, http.StatusRequestEntityTooLarge},
		"data at the bound":       {http.MethodPut, "/v1/volumes/src/data?offset=0", maxData, http.StatusNoContent},
		"no such resource":        {http.MethodPost, "/v1/none", maxParameters + 1, http.StatusRequestEntityTooLarge},
	} {
		for announced, wrap := range map[string]func(io.Reader) io.Reader{
			"announced": func(r io.Reader) io.Reader { return r },
			"chunked":   func(r io.Reader) io.Reader { return struct{ io.Reader }{r} },
		} {
			t.Run(name+", "+announced, func(t *testing.T) {
				body := fmt.Sprintf(`{"name": %q, "size_bytes": 1048576}`, announced)
				req, err := http.NewRequestWithContext(t.Context(), tt.method, url+tt.path, wrap(strings.NewReader(body+strings.Repeat(" ", tt.body-len(body)))))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var f v1.Failure
				if resp.StatusCode != tt.want {
					t.Errorf("status %d, want %d", resp.StatusCode, tt.want)
				} else if err := json.NewDecoder(resp.Body).Decode(&f); tt.want == http.StatusRequestEntityTooLarge && (err != nil || f.Kind != "too_large") {
					t.Errorf("answer %+v, %v", f, err)
				}
			})
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if held := server.memory.Held(); held != 0 {
		t.Errorf("%d bytes are held at the end", held)
	}
}

// TestServer_reserve: a request takes memory for what it may send and get.
func TestServer_reserve(t *testing.T) {
	server := NewServer(serving(t, nil))
	for _, tt := range []struct {
		load  load
		query string
		body  string
		want  int64
	}{
		{short, "", "", 0},
		{short, "", "{}", 2},
		{givesData, "?offset=0&length=4096", "", 4096},
		{givesData, "?offset=0&length=99999999999", "", maxData},
		{givesData, "?offset=0&length=x", "", maxData},
		{givesData, "", "{}", 2 + maxData},
		{takesData, "?offset=0", "{}", 2},
		{lists, "", "", defaultMemory / 2},
	} {
		c := &call{ctx: t.Context(), request: httptest.NewRequest(http.MethodPost, "/"+tt.query, strings.NewReader(tt.body))}
		if err := server.reserve(&route{load: tt.load}, c); err != nil {
			t.Fatal(err)
		}
		if held := server.memory.Held(); held != tt.want || c.held.n != tt.want {
			t.Errorf("%+v%s: %d bytes are held, want %d", tt.load, tt.query, held, tt.want)
		}
		c.held.release()
	}
}

// TestServer_lists: a list takes memory for what it has, while a client takes it.
func TestServer_lists(t *testing.T) {
	memory := quota.New(1 << 20)
	c := &call{held: reservation{memory, "client", memory.Limit() / 2}}
	if err := memory.Take(t.Context(), "client", c.held.n); err != nil {
		t.Fatal(err)
	}
	all := list{n: 3, entry: func(i int) any { return v1.Volume{Name: fmt.Sprint(i)} }}
	c.held.shrink(all.bytes())
	if held := memory.Held(); held != 3*listEntry {
		t.Errorf("%d bytes are held", held)
	}
	c.held.shrink(memory.Limit())
	if held := memory.Held(); held != 3*listEntry {
		t.Errorf("%d bytes are held after it was to grow", held)
	}
	c.held.release()
	c.held.release()
	if held := memory.Held(); held != 0 {
		t.Errorf("%d bytes are held at the end", held)
	}
}

// TestList_encode: a list in JSON is what encoding/json makes of the whole.
func TestList_encode(t *testing.T) {
	for n := range 4 {
		want := make([]v1.File, n)
		for i := range n {
			want[i] = v1.File{Name: fmt.Sprintf("file <%d>", i), SizeBytes: int64(i)}
		}
		var b bytes.Buffer
		if err := (list{n, func(i int) any { return want[i] }}).encode(&b); err != nil {
			t.Fatal(err)
		}
		var got []v1.File
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || got == nil || !slices.Equal(got, want) {
			t.Errorf("%d files are %q, %v", n, b.Bytes(), err)
		}
	}
}
