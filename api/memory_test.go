package api

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"odx/internal/kit/logs"
	"odx/quota"
)

// patience is how long a test waits for what has to happen.
const patience = 10 * time.Second

// TestDemands: what takes memory is a request that there is.
func TestDemands(t *testing.T) {
	known := map[string]bool{}
	for _, r := range allRoutes() {
		known[r.method+" "+r.path] = true
	}
	for request := range demands {
		if !known[request] {
			t.Errorf("no request is %s", request)
		}
	}
}

// TestServer_ShareMemory: a request waits for memory, unread; one that needs none is
// answered meanwhile.
func TestServer_ShareMemory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	memory := quota.New(maxData)
	server := NewServer(s.Admin(), logs.Discard())
	server.ShareMemory(memory)
	server.ServeSocket(dir)
	t.Cleanup(func() { server.Shutdown(context.Background()) })
	client := NewClient(dir)
	t.Cleanup(client.Close)
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

// TestBoundedListener: a client beyond the bound is accepted when another one has gone.
func TestBoundedListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newBoundedListener(inner, 1)
	accepted, failed := make(chan net.Conn), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	if len(l.places) != 1 {
		t.Errorf("%d places are taken", len(l.places))
	}
	first.Close()
	first.Close() // as net/http may
	select {
	case second := <-accepted:
		defer second.Close()
	case <-time.After(patience):
		t.Fatal("the second client is not accepted")
	}
	l.Close()
	if err := <-failed; err == nil {
		t.Error("accepts after the end")
	}
}
