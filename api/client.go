package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/internal/localsocket"
)

// maxResponse bounds what the client reads of a response, in bytes.
const maxResponse = 64 << 20

// Client is the Administrator of a store that a server has open.
type Client struct {
	http http.Client
	// base is the URL before the path, secret authenticates requests.
	base   string
	secret string
}

// NewClient returns a client for the server of the store in dir. Every call
// returns ErrNotRunning when there is none.
func NewClient(dir string) *Client {
	dial := func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = localsocket.At(dir, socketName, func(path string) error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, "unix", path)
			return err
		})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, admin.ErrNotRunning
		}
		return conn, err
	}
	// HTTP requires a host; dial ignores it.
	return newClient(&http.Transport{DialContext: dial}, "http://odx", "")
}

// NewRemoteClient returns a client for a server at an http or https URL without a path.
// Its certificate has to be one that this machine trusts.
func NewRemoteClient(base string, secret []byte) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%q is not the URL of an API; write https://HOST:PORT", base)
	}
	return newClient(&http.Transport{}, u.Scheme+"://"+u.Host, string(secret)), nil
}

// newClient returns a client that follows no redirects. The API has none but those to
// another path, and following one would reveal the secret.
func newClient(transport *http.Transport, base, secret string) *Client {
	return &Client{base: base, secret: secret, http: http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) StoreInfo(ctx context.Context) (admin.StoreInfo, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/store", nil, storeOf)
}

func (c *Client) Exclusive(ctx context.Context) (map[string]int64, error) {
	return roundTrip[map[string]int64](ctx, c, http.MethodGet, "/v1/store/exclusive", nil)
}

func (c *Client) Check(ctx context.Context) (admin.CheckResult, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/store/check", nil, checkResultOf)
}

func (c *Client) Clean(ctx context.Context) (admin.CleanResult, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/store/clean", nil, cleanResultOf)
}

func (c *Client) Volumes(ctx context.Context) ([]admin.Volume, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/volumes", nil, each(volumeOf))
}

func (c *Client) CreateVolume(ctx context.Context, name string, size int64) (admin.Volume, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/volumes", v1.CreateVolume{Name: name, SizeBytes: size}, volumeOf)
}

func (c *Client) StartVolume(ctx context.Context, name string, size int64) (admin.Volume, error) {
	return requestVolume(ctx, c, http.MethodPost, name, "/start", v1.Resize{SizeBytes: size})
}

func (c *Client) FinishVolume(ctx context.Context, scratch, name string) (admin.Volume, error) {
	return requestVolume(ctx, c, http.MethodPost, name, "/finish", v1.FinishVolume{Scratch: scratch})
}

func (c *Client) ResizeVolume(ctx context.Context, name string, size int64) (admin.Volume, error) {
	return requestVolume(ctx, c, http.MethodPatch, name, "", v1.Resize{SizeBytes: size})
}

func (c *Client) DeleteVolume(ctx context.Context, name string) error {
	_, err := requestVolume(ctx, c, http.MethodDelete, name, "", nil)
	return err
}

func (c *Client) SnapshotVolume(ctx context.Context, src, name string) (admin.Volume, error) {
	return requestVolume(ctx, c, http.MethodPost, src, "/snapshot", v1.NewName{Name: name})
}

func (c *Client) RenameVolume(ctx context.Context, old, name string) (admin.Volume, error) {
	return requestVolume(ctx, c, http.MethodPost, old, "/rename", v1.NewName{Name: name})
}

func (c *Client) RevertVolume(ctx context.Context, r admin.RevertRequest) (admin.Volume, error) {
	what := "/revert"
	if r.Force {
		what += "?force=true"
	}
	return requestVolume(ctx, c, http.MethodPost, r.Snapshot, what, v1.Revert{Volume: r.Volume})
}

func (c *Client) CloneVolume(ctx context.Context, src, name string) (admin.Volume, error) {
	return requestVolume(ctx, c, http.MethodPost, src, "/clone", v1.NewName{Name: name})
}

// requestVolume sends a request about a volume.
func requestVolume(ctx context.Context, c *Client, method, name, what string, parameters any) (admin.Volume, error) {
	path, err := volumePath(name, what)
	if err != nil {
		return admin.Volume{}, err
	}
	return requestAs(ctx, c, method, path, parameters, volumeOf)
}

// volumePath returns the path of a resource of a volume.
func volumePath(name, what string) (string, error) {
	if name == "" || name[0] == '.' && !admin.IsScratchVolume(name) {
		// Hidden names and the empty one are no paths.
		return "", fmt.Errorf("volume %s: %w", name, backstore.ErrNotFound)
	}
	return "/v1/volumes/" + url.PathEscape(name) + what, nil
}

func (c *Client) Scrub(ctx context.Context, r admin.ScrubRequest, progress func(backstore.ScrubProgress)) (backstore.ScrubResult, error) {
	result, err := requestLines[v1.ScrubProgress, v1.ScrubResult](ctx, c, "/v1/store/scrub", scrubRequestV1(r), converting(progress, scrubProgressOf))
	return scrubResultOf(result), err
}

// requestLines sends a request whose response is lines of JSON: progress, then the
// result.
func requestLines[P, R any](ctx context.Context, c *Client, path string, parameters any, progress func(P)) (result R, err error) {
	return linesOf[P, R](ctx, c, http.MethodPost, path, parameters, progress)
}

// linesOf is requestLines by another method.
func linesOf[P, R any](ctx context.Context, c *Client, method, path string, parameters any, progress func(P)) (result R, err error) {
	resp, err := c.send(ctx, method, path, parameters)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var line v1.Line[P, R]
		if err := lines.Decode(&line); err != nil {
			return result, transportError(ctx, err)
		}
		switch {
		case line.Failure != nil && line.Error != "":
			return result, errorOf(line.Failure)
		case line.Result != nil:
			return *line.Result, nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}

// roundTrip sends a request and decodes the response, if it has a body.
func roundTrip[T any](ctx context.Context, c *Client, method, path string, parameters any) (result T, err error) {
	resp, err := c.send(ctx, method, path, parameters)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return result, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxResponse)).Decode(&result); err != nil {
		return result, transportError(ctx, err)
	}
	return result, nil
}

// send sends a request. It returns a response with an error status as an error; the
// caller closes the body of any other.
func (c *Client) send(ctx context.Context, method, path string, parameters any) (*http.Response, error) {
	var body io.Reader
	if parameters != nil {
		b, err := json.Marshal(parameters)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	return c.sendBody(ctx, method, path, body)
}

// sendBody sends a request with a body that is not JSON.
func (c *Client) sendBody(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	return c.exchange(req)
}

// exchange sends a request as it is, with the secret.
func (c *Client) exchange(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if c.secret != "" {
		req.Header.Set("Authorization", "Bearer "+c.secret)
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, transportError(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var f v1.Failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxResponse)).Decode(&f); err != nil || f.Error == "" {
		f.Error = "the running odx answered " + resp.Status
	}
	if f.Kind == canceledKind {
		f.Error = "the running odx stopped before it was done"
	}
	return nil, errorOf(&f)
}

// transportError is the error for a response that did not arrive, or not completely:
// ErrNoAnswer if its connection has ended.
func transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if connectionEnded(err) && !errors.Is(err, ErrNoAnswer) {
		err = fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return fmt.Errorf("request to the running odx: %w", err)
}
