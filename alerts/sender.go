package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sirupsen/logrus"
)

const (
	// maxQueued bounds the events that wait for a webhook; the oldest are dropped.
	maxQueued = 256
	// A post that failed is tried again after firstRetry, then after longer, at most after
	// lastRetry.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 64 << 10
)

// sender posts events to one webhook, in their order.
type sender struct {
	hook     Webhook
	instance string
	client   *http.Client
	log      *logrus.Entry
	cancel   context.CancelFunc
	wake     chan struct{} // has an element when there is something to post

	mu      sync.Mutex // guards what follows
	queue   []event
	dropped int // since the last post
}

func newSender(n *Notifier, h Webhook) *sender {
	return &sender{
		hook: h, instance: n.o.Instance, client: n.o.Client, log: n.o.Log.WithField("webhook", h.Name),
		wake: make(chan struct{}, 1),
	}
}

// add queues events.
func (s *sender) add(events []event) {
	if len(events) == 0 {
		return
	}
	s.mu.Lock()
	s.queue = append(s.queue, events...)
	if over := len(s.queue) - maxQueued; over > 0 {
		s.queue = append([]event(nil), s.queue[over:]...)
		s.dropped += over
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pending returns what is queued, and how many events were dropped before.
func (s *sender) pending() (events []event, dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]event(nil), s.queue...), s.dropped
}

// done removes events that pending has returned.
func (s *sender) done(count, dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// What was dropped since was the oldest: some of these, which are posted nevertheless.
	since := s.dropped - dropped
	s.queue = s.queue[max(count-since, 0):]
	s.dropped = max(since-count, 0)
}

// run posts until ctx ends.
func (s *sender) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		wait := backoff.NewExponentialBackOff()
		wait.InitialInterval, wait.MaxInterval, wait.Multiplier = firstRetry, lastRetry, 2
		failing := false
		_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, s.postPending(ctx) },
			backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
				if !failing {
					s.log.WithError(err).Warn("alerts not posted; they are tried again, every 5 minutes at last")
				}
				failing = true
			}))
		if err != nil && ctx.Err() == nil {
			s.log.WithError(err).Error("alerts refused by the webhook, and dropped; see alerts of the configuration")
		}
	}
}

// postPending posts what is queued, in one request. After a permanent error it is dropped.
func (s *sender) postPending(ctx context.Context) error {
	events, dropped := s.pending()
	if len(events) == 0 {
		return nil
	}
	err := s.post(ctx, events, dropped)
	if err == nil {
		s.done(len(events), dropped)
		return nil
	}
	if permanent := (*backoff.PermanentError)(nil); errors.As(err, &permanent) {
		s.done(len(events), dropped)
	}
	return err
}

// post posts events. A permanent error is one that another try does not end.
func (s *sender) post(ctx context.Context, events []event, dropped int) error {
	body, err := json.Marshal(s.message(events, dropped))
	if err != nil {
		return backoff.Permanent(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.hook.URL, bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "odx")
	if s.hook.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.hook.Token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return withoutURL(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	return verdict(res)
}

// withoutURL removes the URL from an error, which goes to the log: it may have a secret.
func withoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return fmt.Errorf("post: %w", u.Err)
	}
	return err
}

// verdict returns the error that an answer means: permanent, unless the webhook asks to come
// again, or fails itself.
func verdict(res *http.Response) error {
	err := fmt.Errorf("post: answer %s", res.Status)
	switch code := res.StatusCode; {
	case code/100 == 2:
		return nil
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		if after, ok := strconv.Atoi(res.Header.Get("Retry-After")); ok == nil && after > 0 {
			return backoff.RetryAfter(min(after, int(lastRetry/time.Second)))
		}
		return err
	case code == http.StatusRequestTimeout || code/100 == 5:
		return err
	}
	return backoff.Permanent(err)
}
