package httpstop_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"odx/internal/httpstop"
)

// TestConnections_Shutdown: connections without a request, over TCP and TLS, do not keep a
// server, and a request that is being served is served to its end.
func TestConnections_Shutdown(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		var c httpstop.Connections
		begun, finish := make(chan struct{}), make(chan struct{})
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(begun)
			<-finish
			_, _ = io.WriteString(w, "whole")
		}))
		s.Config.ConnState = c.Track
		if encrypted {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		answer := make(chan string, 1)
		go func() {
			r, err := s.Client().Get(s.URL)
			if err != nil {
				answer <- err.Error()
				return
			}
			defer r.Body.Close()
			b, _ := io.ReadAll(r.Body)
			answer <- string(b)
		}()
		<-begun
		for range 3 {
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		time.AfterFunc(100*time.Millisecond, func() { close(finish) })
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := c.Shutdown(ctx, s.Config); err != nil {
			t.Errorf("encrypted %t: %v", encrypted, err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("encrypted %t: the end took %v", encrypted, took)
		}
		if got := <-answer; got != "whole" {
			t.Errorf("encrypted %t: answer %q", encrypted, got)
		}
	}
}
