package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"odx/admin"
	"odx/internal/kit/logs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a webhook without a network.
type receiver struct {
	mu     sync.Mutex
	status int    // of its answers; 0: there is no answer
	after  string // Retry-After
	hang   bool   // it answers when the request ends
	posts  []message
	tries  []time.Time
	tokens []string
}

// RoundTrip implements http.RoundTripper.
func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries = append(r.tries, time.Now())
	r.tokens = append(r.tokens, req.Header.Get("Authorization"))
	if r.hang {
		r.mu.Unlock()
		<-req.Context().Done()
		r.mu.Lock()
		return nil, req.Context().Err()
	}
	if r.status == 0 {
		return nil, errors.New("connection refused")
	}
	var m message
	if err := json.NewDecoder(req.Body).Decode(&m); err != nil {
		return nil, err
	}
	if r.status == http.StatusOK {
		r.posts = append(r.posts, m)
	}
	return &http.Response{
		StatusCode: r.status, Status: fmt.Sprint(r.status), Header: http.Header{"Retry-After": []string{r.after}}, Body: io.NopCloser(strings.NewReader("ok")),
	}, nil
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// got returns what was posted, as "OdxStoreFull firing" each, and forgets it.
func (r *receiver) got() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.posts {
		for _, a := range m.Alerts {
			list = append(list, a.Labels["alertname"]+" "+a.Status)
		}
	}
	r.posts = nil
	return list
}

// server is what is watched.
type server struct {
	mu     sync.Mutex
	status admin.Status
}

func (s *server) Status() (admin.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, nil
}

func (s *server) set(change func(*admin.Vitals)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status.Vitals)
}

// pass lets time pass, and what happens then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func full(v *admin.Vitals)    { v.FreeBytes = 0 }
func notFull(v *admin.Vitals) { v.FreeBytes = 1 << 30 }

// watched runs fn with a healthy server and a notifier that has looked at it once.
func watched(t *testing.T, r *receiver, fn func(s *server, n *Notifier)) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{status: admin.Status{Portals: []string{"127.0.0.1:3260"}, Vitals: admin.Vitals{FreeBytes: 1 << 30}}}
		n := NewNotifier(Options{
			Status: s.Status, Instance: "host", Webhooks: []Webhook{{Name: "ops", URL: "http://ops.example/hook", Token: "secret"}},
			Log: logs.Discard(), Client: &http.Client{Transport: r, Timeout: postLimit},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { n.Run(ctx); close(ended) }()
		pass(time.Second) // the looks come a second before those of the test
		fn(s, n)
		cancel()
		<-ended
	})
}

func want(t *testing.T, r *receiver, when string, alerts ...string) {
	t.Helper()
	if got := r.got(); !slices.Equal(got, alerts) {
		t.Errorf("%s: posted %q, want %q", when, got, alerts)
	}
}

// TestNotifier: an alert begins with its condition, and ends a minute after it.
func TestNotifier(t *testing.T) {
	r := &receiver{status: http.StatusOK}
	watched(t, r, func(s *server, _ *Notifier) {
		pass(time.Hour)
		want(t, r, "nothing is wrong")
		s.set(full)
		pass(10 * time.Second)
		want(t, r, "full", "OdxStoreFull firing")
		s.set(notFull)
		pass(30 * time.Second)
		s.set(full)
		pass(time.Hour)
		want(t, r, "it comes and goes within a minute")
		pass(repeatEvery)
		want(t, r, "it stays", "OdxStoreFull firing")
		s.set(notFull)
		pass(settled - 10*time.Second)
		want(t, r, "it may come back")
		pass(20 * time.Second)
		want(t, r, "it is gone", "OdxStoreFull resolved")
	})
	if r.tokens[0] != "Bearer secret" {
		t.Errorf("authorization %q", r.tokens[0])
	}
}

// TestNotifier_Message: what is posted is what Alertmanager posts.
func TestNotifier_Message(t *testing.T) {
	r := &receiver{status: http.StatusOK}
	watched(t, r, func(s *server, _ *Notifier) {
		s.set(full)
		pass(10 * time.Second)
		m := r.posts[0]
		if m.Version != "4" || m.Status != "firing" || m.Receiver != "ops" || m.CommonLabels["instance"] != "host" || len(m.Alerts) != 1 {
			t.Fatalf("%+v", m)
		}
		a := m.Alerts[0]
		if a.Labels["alertname"] != "OdxStoreFull" || a.Labels["severity"] != "critical" || a.Labels["instance"] != "host" ||
			!strings.Contains(a.Annotations["summary"], "full") || !a.EndsAt.IsZero() || time.Since(a.StartsAt) > time.Minute || a.Fingerprint == "" {
			t.Errorf("%+v", a)
		}
	})
}

// TestNotifier_Refusals: refused copies are an alert while they grow; those before the start
// are not.
func TestNotifier_Refusals(t *testing.T) {
	r := &receiver{status: http.StatusOK}
	watched(t, r, func(s *server, _ *Notifier) {
		refuse := func(v *admin.Vitals) { v.RefusedCopies++ }
		s.set(refuse)
		pass(10 * time.Second)
		want(t, r, "one more", "OdxCopiesRefused firing")
		pass(5 * time.Minute)
		s.set(refuse)
		pass(refusalTime - time.Minute)
		want(t, r, "another one")
		pass(3 * time.Minute)
		want(t, r, "no more", "OdxCopiesRefused resolved")
	})
	r = &receiver{status: http.StatusOK}
	synctest.Test(t, func(t *testing.T) {
		var w watch
		if e := w.observe(time.Now(), &admin.Status{Portals: []string{"a"}, Vitals: admin.Vitals{FreeBytes: 1 << 30, RefusedCopies: 7}}); len(e) != 0 {
			t.Errorf("refusals before the first look: %+v", e)
		}
	})
}

// TestNotifier_Retry: nothing is lost while a webhook is away, and it is not asked too often.
func TestNotifier_Retry(t *testing.T) {
	for name, answer := range map[string]int{"no answer": 0, "server error": 500, "unavailable": 503, "too many": 429} {
		t.Run(name, func(t *testing.T) {
			r := &receiver{status: answer}
			watched(t, r, func(s *server, _ *Notifier) {
				s.set(full)
				pass(time.Hour)
				s.set(notFull)
				pass(time.Hour)
				if n := len(r.tries); n < 20 || n > 60 {
					t.Errorf("%d tries in two hours", n)
				}
				r.answer(http.StatusOK)
				pass(2 * lastRetry)
				want(t, r, "it is back", "OdxStoreFull firing", "OdxStoreFull resolved")
			})
		})
	}
	t.Run("it says when", func(t *testing.T) {
		r := &receiver{status: 429, after: "120"}
		watched(t, r, func(s *server, _ *Notifier) {
			s.set(full)
			pass(5 * time.Minute)
			for i := 1; i < len(r.tries); i++ {
				if d := r.tries[i].Sub(r.tries[i-1]); d != 2*time.Minute {
					t.Errorf("tried again after %v", d)
				}
			}
		})
	})
	t.Run("it refuses", func(t *testing.T) {
		r := &receiver{status: 401}
		watched(t, r, func(s *server, _ *Notifier) {
			s.set(full)
			pass(time.Hour)
			if len(r.tries) != 1 {
				t.Errorf("%d tries", len(r.tries))
			}
		})
	})
	t.Run("it hangs", func(t *testing.T) {
		r := &receiver{hang: true}
		watched(t, r, func(s *server, n *Notifier) {
			n.SetWebhooks([]Webhook{{Name: "ops", URL: "http://ops.example/hook"}, {Name: "second", URL: "http://second.example/"}})
			s.set(full)
			pass(time.Hour)
			if len(r.tries) < 2 {
				t.Errorf("%d tries", len(r.tries))
			}
		}) // which ends
	})
}

// TestSender_Bound: the queue of a webhook that does not answer has a bound; the last events
// are in it.
func TestSender_Bound(t *testing.T) {
	r := &receiver{status: http.StatusOK}
	s := newSender(NewNotifier(Options{Log: logs.Discard(), Client: &http.Client{Transport: r}}), Webhook{URL: "http://ops.example/"})
	for i := range 10 * maxQueued {
		s.add([]event{{name: fmt.Sprint(i)}})
	}
	if len(s.queue) != maxQueued || s.queue[maxQueued-1].name != fmt.Sprint(10*maxQueued-1) {
		t.Errorf("%d events, the last one %s", len(s.queue), s.queue[len(s.queue)-1].name)
	}
	events, dropped := s.pending()
	s.add(slices.Repeat([]event{{name: "later"}}, 3)) // while the others are posted
	s.done(len(events), dropped)
	if len(s.queue) != 3 || s.queue[0].name != "later" || s.dropped != 0 {
		t.Errorf("left %d, dropped %d", len(s.queue), s.dropped)
	}
	if err := s.postPending(t.Context()); err != nil || len(s.queue) != 0 {
		t.Errorf("%v, left %d", err, len(s.queue))
	}
}

// TestNotifier_SetWebhooks: a webhook that is new gets what goes on, one that is gone nothing
// more.
func TestNotifier_SetWebhooks(t *testing.T) {
	r := &receiver{status: http.StatusOK}
	watched(t, r, func(s *server, n *Notifier) {
		s.set(full)
		pass(time.Minute)
		want(t, r, "the first webhook", "OdxStoreFull firing")
		n.SetWebhooks([]Webhook{{Name: "other", URL: "http://other.example/"}})
		pass(time.Second)
		if len(r.posts) != 1 || r.posts[0].Receiver != "other" {
			t.Errorf("posts %+v", r.posts)
		}
		r.got()
		n.SetWebhooks(nil)
		s.set(notFull)
		pass(time.Hour)
		want(t, r, "none")
	})
}

// redirects is a webhook that redirects every POST, and answers what follows it.
type redirects struct{ requests []string }

// RoundTrip implements http.RoundTripper.
func (r *redirects) RoundTrip(req *http.Request) (*http.Response, error) {
	r.requests = append(r.requests, req.Method+" "+req.URL.String())
	res := &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{}, Body: http.NoBody, Request: req}
	if req.Method == http.MethodPost {
		res.StatusCode, res.Status = http.StatusFound, "302 Found"
		res.Header.Set("Location", "https://elsewhere.example/")
	}
	return res, nil
}

// TestPost_Redirect: a redirect is followed with a GET that has no alert in it; its answer
// does not count as one to the alert.
func TestPost_Redirect(t *testing.T) {
	r := &redirects{}
	s := newSender(NewNotifier(Options{Log: logs.Discard(), Client: &http.Client{Transport: r}}), Webhook{URL: "http://ops.example/hook"})
	if err := s.post(t.Context(), []event{{name: "a"}}, 0); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("error %v", err)
	}
	if want := []string{"POST http://ops.example/hook"}; !slices.Equal(r.requests, want) {
		t.Errorf("requests %q", r.requests)
	}
}

// TestPost_NoSecretInErrors: URLs of webhooks have secrets, and errors go to the log.
func TestPost_NoSecretInErrors(t *testing.T) {
	s := newSender(NewNotifier(Options{Log: logs.Discard(), Client: &http.Client{Transport: &receiver{}}}), Webhook{URL: "http://ops.example/secret"})
	if err := s.post(t.Context(), []event{{name: "a"}}, 0); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// TestNames: names are those of the conditions.
func TestNames(t *testing.T) {
	if got := Name("store_nearly_full"); got != "OdxStoreNearlyFull" {
		t.Errorf("%s", got)
	}
	if n := Names(); n["OdxCopiesRefused"] != admin.Warning || n["OdxDamage"] != admin.Critical || len(n) != len(admin.ConditionNames())+1 {
		t.Errorf("%v", n)
	}
}
