package peer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "odx/api/v1"
)

const (
	// maxAnswer bounds an answer of JSON, in bytes.
	maxAnswer = 8 << 20
	// dialTime bounds how long an address may take to be connected to, answerTime how long a
	// whole exchange may take.
	dialTime   = 2 * time.Second
	answerTime = 30 * time.Second
	// headerTime bounds how long a peer may take to begin an answer.
	headerTime = 10 * time.Second
	// downTime is how long a peer that was silent for openTime is not asked again, so that not
	// each of many commands waits for it.
	downTime = time.Second
	// idleConnections are kept for each address.
	idleConnections = 16
)

// RemoteOptions say where a peer is, and how it is known.
type RemoteOptions struct {
	Name string
	// Store is the ID of its store: a server with another one is not the peer.
	Store [16]byte
	// Addresses are URLs without a path; the first that answers is used.
	Addresses []string
	// Secret is sent as a bearer token; empty for none.
	Secret []byte
	// TLS says which certificates the peer may have, and which this server shows.
	TLS *tls.Config
	// Dial replaces that of package net, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Remote is a Peer over HTTP. Close ends its connections.
type Remote struct {
	name    string
	store   [16]byte
	storeID string
	secret  string
	http    http.Client
	// at is the index of the address that answered last.
	addresses []string
	at        atomic.Int64

	numbers remoteCounters
	rate    rateMeter
	lending lending

	mu    sync.Mutex // guards the fields below
	down  error      // why it did not answer last; nil if it did
	until time.Time  // it is not asked before
	heard time.Time  // its last answer
}

// remoteCounters count what came from a peer.
type remoteCounters struct {
	requests, failures, fetched, mapped, wire atomic.Int64
}

// NewRemote returns a peer. Nothing is asked yet.
func NewRemote(o RemoteOptions) *Remote {
	r := &Remote{name: o.Name, store: o.Store, storeID: hex.EncodeToString(o.Store[:]), secret: string(o.Secret)}
	for _, a := range o.Addresses {
		r.addresses = append(r.addresses, strings.TrimSuffix(a, "/"))
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialTime}).DialContext
	}
	r.http = http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := o.Dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return counted{c, &r.numbers.wire}, nil
			},
			// HTTP/1.1: one connection for each request under way, see docs/peers.md.
			TLSClientConfig: o.TLS, TLSHandshakeTimeout: dialTime, DisableCompression: true,
			MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: 30 * time.Second,
			ResponseHeaderTimeout: headerTime, MaxResponseHeaderBytes: 16 << 10,
			ReadBufferSize: 64 << 10, WriteBufferSize: 16 << 10,
		},
		// A redirect would reveal the secret.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return r
}

// counted is a connection whose received bytes are counted.
type counted struct {
	net.Conn
	n *atomic.Int64
}

// Read implements net.Conn.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Name implements Peer.
func (r *Remote) Name() string { return r.name }

// Store implements Peer.
func (r *Remote) Store() [16]byte { return r.store }

// Close closes idle connections. Holds that are open stay usable.
func (r *Remote) Close() { r.http.CloseIdleConnections() }

// downError is ErrDown with what happened.
func (r *Remote) downError(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrDown, r.name, err)
}

// available returns why the peer is not asked now, nil if it is.
func (r *Remote) available() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down != nil && time.Now().Before(r.until) {
		return r.downError(r.down)
	}
	return nil
}

// answered notes whether the peer has answered.
func (r *Remote) answered(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down = err; err == nil {
		r.heard = time.Now()
		return
	}
	r.numbers.failures.Add(1)
}

// heardSince reports whether the peer has answered anything since a time. If so, a request that
// did not end in the time of its caller was slow: others may have filled the link.
func (r *Remote) heardSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard.After(t)
}

// silent notes that nothing came from the peer in all the time that it has to answer. What
// fails at once, as a connection that is refused, is tried again each time.
func (r *Remote) silent(err error) error {
	r.answered(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Now().Add(downTime)
	return r.downError(err)
}

// send sends a request to the first address that answers, and returns the response if its
// status is that of a success. The caller closes its body. The whole exchange has to end
// before ctx does.
func (r *Remote) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	if err := r.available(); err != nil {
		return nil, err
	}
	r.numbers.requests.Add(1)
	var errs []error
	first := int(r.at.Load())
	for i := range r.addresses {
		at := (first + i) % len(r.addresses)
		resp, err := r.attempt(ctx, r.addresses[at]+path, method, contentType, body)
		if err == nil {
			r.at.Store(int64(at))
			r.answered(nil)
			return r.checked(resp)
		}
		if ctx.Err() != nil {
			return nil, r.interrupted(ctx) // a peer that is slow need not be down
		}
		errs = append(errs, err)
		if !isDial(err) {
			break // it may have been executed; the caller decides
		}
	}
	err := cmp.Or(errors.Join(errs...), errNoAddress)
	r.answered(err)
	return nil, r.downError(err)
}

// interrupted is the error of a request that ctx has ended.
func (r *Remote) interrupted(ctx context.Context) error {
	return fmt.Errorf("peer %s: %w", r.name, ctx.Err())
}

var errNoAddress = errors.New("it has no address")

// isDial reports whether a request failed before anything was sent.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func (r *Remote) attempt(ctx context.Context, to, method, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if r.secret != "" {
		req.Header.Set("Authorization", "Bearer "+r.secret)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if replays(method, to) {
		// So that a connection that the peer has closed in the meantime is replaced; not sent.
		req.Header["Idempotency-Key"] = nil
	}
	resp, err := r.http.Do(req)
	if plain := (*url.Error)(nil); errors.As(err, &plain) {
		err = plain.Err
	}
	return resp, err
}

// replays reports whether a request may be executed twice. A hold of which no answer came ends
// with its lease.
func replays(method, to string) bool {
	return method != http.MethodPost || !strings.HasSuffix(to, "/delete")
}

// checked returns the response of a success, or the error of a failure.
func (r *Remote) checked(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRequest))
	var f v1.Failure
	if json.Unmarshal(text, &f) != nil || f.Kind == "" {
		return nil, r.unusable("it answers %.40q, as no odx does; check its addresses", resp.Status)
	}
	if todo, ok := refusals[f.Kind]; ok {
		return nil, r.unusable("it refuses this server: %.*q; %s", maxFailureText, f.Error, todo)
	}
	return nil, errorOf(f)
}

// unusable notes, and returns as an ErrDown, why a peer that answers gives nothing.
func (r *Remote) unusable(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	r.answered(errors.New(text))
	return &remoteError{"peer " + r.name + ": " + text, ErrDown}
}

// Call implements Peer.
func (r *Remote) Call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var body []byte
	contentType := ""
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
		contentType = "application/json"
	}
	resp, err := r.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, maxRequest) // so that the connection is used again
		return nil
	}
	return r.decode(ctx, &answer{Reader: resp.Body}, out)
}

// decode reads an answer of JSON.
func (r *Remote) decode(ctx context.Context, body *answer, out any) error {
	limited := io.LimitReader(body, maxAnswer)
	if err := json.NewDecoder(limited).Decode(out); err != nil {
		return r.broken(ctx, body, fmt.Errorf("%w: %s: %w", ErrProtocol, r.name, err))
	}
	_, _ = io.Copy(io.Discard, limited)
	return nil
}

// frames sends a request whose answer is a body of frames, which read reads.
func (r *Remote) frames(ctx context.Context, method, path string, body []byte, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	contentType := ""
	if body != nil {
		contentType = "application/octet-stream"
	}
	resp, err := r.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	came := &answer{Reader: resp.Body}
	if err := read(came); err != nil {
		return r.broken(ctx, came, fmt.Errorf("peer %s: %w", r.name, err))
	}
	return nil
}

// answer is the body of a response. It keeps the error of its connection.
type answer struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err != nil && err != io.EOF {
		a.err = err
	}
	return n, err
}

// broken is the error of an answer of which not all was read: that its reader found, unless ctx
// or the connection ended.
func (r *Remote) broken(ctx context.Context, body *answer, found error) error {
	switch {
	case ctx.Err() != nil:
		return r.interrupted(ctx)
	case body.err != nil:
		r.answered(body.err)
		return r.downError(body.err)
	}
	return found
}

// Hello asks whether the peer answers, and is the one that it should be.
func (r *Remote) Hello(ctx context.Context) error {
	var a v1.PeerHello
	began := time.Now()
	if err := r.Call(ctx, http.MethodGet, Path+"hello", nil, &a); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && !r.heardSince(began) {
			r.answered(context.DeadlineExceeded) // for Status; others may have more time
		}
		return err
	}
	return r.checkStore(a.Store)
}

// checkStore refuses an answer from another store.
func (r *Remote) checkStore(id string) error {
	if id == r.storeID {
		return nil
	}
	return r.unusable("the server at its address has the store %.40q, not %s; correct store or addresses", id, r.storeID)
}

// RemoteStatus describes a peer, as this server sees it.
type RemoteStatus struct {
	Name      string
	Store     [16]byte
	Addresses []string
	// Up: it has answered the last request, and does not refuse this server. Problem is why not;
	// both are empty before the first one.
	Up      bool
	Problem string
	// Heard is when it answered last.
	Heard time.Time
	// Fetched counts bytes of data that came from it, Mapped those that were here already,
	// Wire all bytes that were received.
	Requests, Failures, Fetched, Mapped, Wire int64
}

// Status returns what is known of the peer.
func (r *Remote) Status() RemoteStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := RemoteStatus{
		Name: r.name, Store: r.store, Addresses: r.addresses, Up: r.down == nil && !r.heard.IsZero(), Heard: r.heard,
		Requests: r.numbers.requests.Load(), Failures: r.numbers.failures.Load(), Fetched: r.numbers.fetched.Load(),
		Mapped: r.numbers.mapped.Load(), Wire: r.numbers.wire.Load(),
	}
	if r.down != nil {
		s.Problem = r.down.Error()
	}
	return s
}
