package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/internal/kit/logs"
)

const testSecret = "0123456789abcdef"

func TestRemoteURL(t *testing.T) {
	for _, text := range []string{"", "host:1", "ftp://host", "http://host/path", "https://"} {
		if _, err := NewRemoteClient(text, nil); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// guardWith returns a guard with these secrets.
func guardWith(keys ...key) *Guard {
	g := &Guard{}
	g.current.Store(&credentials{keys: keys})
	return g
}

func newKey(name string, r role, secret string) key {
	return key{name, r, sha256.Sum256([]byte(secret)), "api.secrets[" + name + "].secret"}
}

// send sends a request with a secret, if it is not empty, and returns status and failure.
func send(t *testing.T, c *http.Client, method, url, authorization string) (int, v1.Failure, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var f v1.Failure
	if resp.StatusCode >= 400 {
		if err := json.NewDecoder(resp.Body).Decode(&f); err != nil {
			t.Fatal(err)
		}
	} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, f, resp.Header
}

// TestGuardedServer: over TCP, requests without a secret are refused.
func TestGuardedServer(t *testing.T) {
	s := open(t, t.TempDir())
	base, _ := serveTCP(t, NewGuardedServer(serving(t, s.Admin()), guardWith(newKey("default", administers, testSecret))))
	client, err := NewRemoteClient(base, []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if all, err := client.Volumes(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("with the secret: %v, %v", all, err)
	}
	if err := client.DeleteVolume(t.Context(), "none"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("no volume: %v", err)
	}
	for name, header := range map[string]string{
		"none": "", "another": "Bearer 0123456789abcdeF", "a part": "Bearer " + testSecret[:15],
		"longer": "Bearer " + testSecret + "0", "another scheme": "Basic " + testSecret, "empty": "Bearer ",
	} {
		status, f, head := send(t, &client.http, http.MethodGet, base+"/v1/volumes", header)
		if status != http.StatusUnauthorized || f.Kind != "unauthorized" || !strings.HasPrefix(head.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: %d %+v, %v", name, status, f, head)
		}
	}
}

// TestFind: each secret is found, wherever it is in the list, and nothing else is.
func TestFind(t *testing.T) {
	var keys []key
	for i := range 5 {
		keys = append(keys, newKey(fmt.Sprint(i), reads, strings.Repeat(fmt.Sprint(i), 16)))
	}
	for i := range keys {
		if k := find(keys, strings.Repeat(fmt.Sprint(i), 16)); k != &keys[i] {
			t.Errorf("secret %d: %+v", i, k)
		}
	}
	for _, given := range []string{"", "0", strings.Repeat("5", 16), strings.Repeat("0", 17)} {
		if k := find(keys, given); k != nil {
			t.Errorf("%q is the secret of %s", given, k.name)
		}
	}
	if find(nil, "") != nil {
		t.Error("a secret without any")
	}
}

// TestGuard_Replace: a secret that was changed or removed counts at once, on connections
// that are open, too; so does another role.
func TestGuard_Replace(t *testing.T) {
	s := open(t, t.TempDir())
	g := guardWith(newKey("old", administers, testSecret))
	base, l := serveTCP(t, NewGuardedServer(serving(t, s.Admin()), g))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	try := func(secret string, want int) {
		t.Helper()
		if status, f, _ := send(t, client, http.MethodPost, base+"/v1/store/check", "Bearer "+secret); status != want {
			t.Errorf("%d %+v, want %d", status, f, want)
		}
	}
	const next = "fedcba9876543210"
	try(testSecret, http.StatusOK)
	g.current.Store(&credentials{keys: []key{newKey("old", reads, testSecret), newKey("new", operates, next)}})
	try(testSecret, http.StatusForbidden)
	try(next, http.StatusOK)
	g.current.Store(&credentials{keys: []key{newKey("new", operates, next)}})
	if n := l.accepted.Load(); n != 1 {
		t.Errorf("%d connections; the test is about one that stays", n)
	}
	try(testSecret, http.StatusUnauthorized)
	try(next, http.StatusOK)
	g.current.Store(&credentials{})
	try(next, http.StatusUnauthorized)
}

// TestGuard_Concurrent: while secrets change, each request is that of one of its own
// secret, or of none.
func TestGuard_Concurrent(t *testing.T) {
	s := open(t, t.TempDir())
	one, two := newKey("one", reads, strings.Repeat("1", 16)), newKey("two", administers, strings.Repeat("2", 16))
	g := guardWith(one)
	base, _ := serveTCP(t, newServer(serving(t, s.Admin()), patientGate{newBearerGate(g, logs.Discard())}))
	ctx, stop := context.WithCancel(t.Context())
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			g.current.Store(&credentials{keys: [][]key{{one}, {two}, {one, two}, {}}[i%4]})
		}
	})
	var asking sync.WaitGroup
	for secret, want := range map[string]int{strings.Repeat("1", 16): http.StatusForbidden, strings.Repeat("2", 16): http.StatusNotFound} {
		asking.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for range 200 {
				status, f, _ := send(t, client, http.MethodDelete, base+"/v1/volumes/none", "Bearer "+secret)
				if status != want && status != http.StatusUnauthorized {
					t.Errorf("secret %.1s: %d %+v", secret, status, f)
				}
			}
		})
	}
	asking.Wait()
	stop()
	changing.Wait()
}

// patientGate forgets failures.
type patientGate struct{ *bearerGate }

func (g patientGate) admit(r *http.Request) (caller, error) {
	f := &g.guard.failures
	f.mu.Lock()
	delete(f.by, addressOf(r))
	f.mu.Unlock()
	return g.bearerGate.admit(r)
}

// TestFailures: after so many wrong secrets an address waits, also with the right one;
// other addresses do not.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines logs.Text
		g := newBearerGate(guardWith(newKey("default", administers, testSecret)), lines.Entry())
		try := func(address, secret string, want error) {
			t.Helper()
			r := httptest.NewRequest(http.MethodGet, "/v1/status", nil)
			r.RemoteAddr = address
			r.Header.Set("Authorization", "Bearer "+secret)
			if _, err := g.admit(r); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", address, err, want)
			}
		}
		for range failureBurst {
			try("192.0.2.1:1", "wrong", errUnauthorized)
			try("[2001:db8::1]:1", "wrong", errUnauthorized)
			try("192.0.2.3:1", testSecret, nil) // does not count
		}
		try("192.0.2.1:2", "wrong", errFailures)
		try("192.0.2.1:2", testSecret, errFailures)
		try("[::ffff:192.0.2.1]:2", testSecret, errFailures)
		try("[2001:db8::2%eth0]:2", testSecret, errFailures)
		try("192.0.2.2:1", testSecret, nil)
		try("[2001:db8:0:1::1]:1", testSecret, nil)
		time.Sleep(time.Second / failureRate)
		try("192.0.2.1:3", testSecret, nil)
		try("192.0.2.1:3", "wrong", errUnauthorized)
		try("192.0.2.1:3", testSecret, errFailures)
		if n := strings.Count(lines.String(), "API secret refused"); n == 0 || n > failureBurst+1 {
			t.Errorf("%d lines", n)
		}
		if strings.Contains(lines.String(), testSecret) || strings.Contains(lines.String(), "wrong") {
			t.Errorf("a secret is in the log:\n%s", &lines)
		}
	})
}

// TestFailures_bound: of more addresses than are remembered, those with the most failures
// are.
func TestFailures_bound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes
		var f failures
		worst := netip.MustParsePrefix("192.0.2.1/32")
		for range failureBurst {
			f.add(worst)
		}
		for i := range 2 * maxFailures {
			f.add(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
		}
		if n := len(f.by); n != maxFailures || !f.blocked(worst) {
			t.Errorf("%d addresses are remembered, the worst is blocked: %t", n, f.blocked(worst))
		}
	})
}

// TestRefuse: the answer to a request that has to wait says how long, and ends the
// connection.
func TestRefuse(t *testing.T) {
	w := httptest.NewRecorder()
	refuse(w, errFailures)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || w.Header().Get("Connection") != "close" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
}
