package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/replica"
)

var _ replica.Streamer = (*Client)(nil)

// streamProgress is how often progress is reported.
const streamProgress = progressPeriod

// Send implements replica.Streamer. Of its progress only DataBytes is known here: of the
// stream.
func (c *Client) Send(ctx context.Context, r replica.SendRequest, w io.Writer, progress func(replica.Progress)) (replica.Sent, error) {
	q := url.Values{"compress": {r.Level.String()}}
	for key, text := range map[string]string{"source": r.Source, "base": r.Base, "resume": r.Resume} {
		if text != "" {
			q.Set(key, text)
		}
	}
	if r.Start != 0 {
		q.Set("start", strconv.FormatInt(r.Start, 10))
	}
	resp, err := c.send(ctx, http.MethodGet, "/v1/send?"+q.Encode(), nil)
	if err != nil {
		return replica.Sent{}, err
	}
	defer resp.Body.Close()
	m := &meter{report: progress}
	from := &remembering{r: resp.Body}
	if _, err := io.Copy(io.MultiWriter(w, m), from); err != nil {
		if ended := from.failure(); ended != nil {
			err = transportError(ctx, ended)
		}
		return replica.Sent{}, err
	}
	return c.sentResult(ctx, resp)
}

// sentResult returns what the end of an answer says.
func (c *Client) sentResult(ctx context.Context, resp *http.Response) (replica.Sent, error) {
	text := resp.Trailer.Get(streamEnd)
	if text == "" {
		return replica.Sent{}, transportError(ctx, io.ErrUnexpectedEOF)
	}
	var end v1.Line[struct{}, v1.Stream]
	if err := json.Unmarshal([]byte(text), &end); err != nil {
		return replica.Sent{}, fmt.Errorf("the running odx answered with the trailer %q: %w", text, err)
	}
	switch {
	case end.Failure != nil && end.Error != "":
		return replica.Sent{}, errorOf(end.Failure)
	case end.Result == nil:
		return replica.Sent{}, transportError(ctx, io.ErrUnexpectedEOF)
	}
	return sentOf(*end.Result)
}

// meter counts the bytes of a stream, and reports them.
type meter struct {
	n      int64
	last   time.Time
	report func(replica.Progress)
}

func (m *meter) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	if now := time.Now(); m.report != nil && now.Sub(m.last) >= streamProgress {
		m.last = now
		m.report(replica.Progress{DataBytes: m.n})
	}
	return len(p), nil
}

// remembering keeps the error of a reader, io.EOF apart. A request may still read its body
// when its response is there.
type remembering struct {
	r   io.Reader
	err atomic.Value // of error, in a readError
}

// readError makes errors of all kinds values of one type.
type readError struct{ error }

// failure returns the error that the reader ended with so far, or nil.
func (r *remembering) failure() error {
	if e, ok := r.err.Load().(readError); ok {
		return e.error
	}
	return nil
}

func (r *remembering) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err.Store(readError{err})
	}
	return n, err
}

// Receive implements replica.Streamer. Of its progress only DataBytes is known here: of the
// stream.
func (c *Client) Receive(ctx context.Context, r replica.ReceiveRequest, from io.Reader, progress func(replica.Progress)) (replica.Received, error) {
	q := url.Values{"name": {r.Name}}
	if r.Snapshot != "" {
		q.Set("snapshot", r.Snapshot)
	}
	for key, on := range map[string]bool{"resume": r.Resume, "force": r.Force} {
		if on {
			q.Set(key, "true")
		}
	}
	// The transport closes a body that can be closed; this one is the caller's.
	body := &remembering{r: from}
	resp, err := c.sendBody(ctx, http.MethodPost, "/v1/receive?"+q.Encode(), io.TeeReader(body, &meter{report: progress}))
	if err != nil {
		if ended := body.failure(); ended != nil && ctx.Err() == nil {
			return replica.Received{}, ended // what was to be sent ended, and the request with it
		}
		return replica.Received{}, err
	}
	defer resp.Body.Close()
	var received v1.Received
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxResponse)).Decode(&received); err != nil {
		return replica.Received{}, transportError(ctx, err)
	}
	return receivedOf(received)
}

// Partials implements replica.Streamer.
func (c *Client) Partials(ctx context.Context) ([]replica.Partial, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/partials", nil, each(partialOf))
}

// DropPartial implements replica.Streamer.
func (c *Client) DropPartial(ctx context.Context, name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%s: %w", name, backstore.ErrNotFound)
	}
	_, err := roundTrip[struct{}](ctx, c, http.MethodDelete, "/v1/partials/"+url.PathEscape(name), nil)
	return err
}
