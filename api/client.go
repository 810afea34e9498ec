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
)

// maxAnswer bounds what the client reads of an answer, in bytes.
const maxAnswer = 64 << 20

// Client is the Administrator of a store that a server has open.
type Client struct {
	http http.Client
	// base is the URL before the path, secret what requests prove themselves by.
	base   string
	secret string
}

// NewClient returns a client for the server of the store in dir. Every call
// returns ErrNotRunning when there is none.
func NewClient(dir string) *Client {
	dial := func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = withSocket(dir, func(path string) error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, "unix", path)
			return err
		})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, admin.ErrNotRunning
		}
		return conn, err
	}
	// The host is only what HTTP wants to see; dial knows the way.
	return &Client{http: http.Client{Transport: &http.Transport{DialContext: dial}}, base: "http://odx"}
}

// NewRemoteClient returns a client for a server that answers over TCP at an
// http or https URL without a path. Certificates are those that the machine
// trusts.
func NewRemoteClient(base string, secret []byte) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%q is not the URL of an API; write https://HOST:PORT", base)
	}
	return &Client{base: u.Scheme + "://" + u.Host, secret: string(secret), http: http.Client{
		Transport: &http.Transport{},
		// Nothing answers with one; following it would show the secret elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) StoreInfo(ctx context.Context) (admin.StoreInfo, error) {
	return askFor(ctx, c, http.MethodGet, "/v1/store", nil, storeOf)
}

func (c *Client) Exclusive(ctx context.Context) (map[string]int64, error) {
	return ask[map[string]int64](ctx, c, http.MethodGet, "/v1/store/exclusive", nil)
}

func (c *Client) Check(ctx context.Context) (admin.CheckResult, error) {
	return askFor(ctx, c, http.MethodPost, "/v1/store/check", nil, checkResultOf)
}

func (c *Client) Clean(ctx context.Context) (admin.CleanResult, error) {
	return askFor(ctx, c, http.MethodPost, "/v1/store/clean", nil, cleanResultOf)
}

func (c *Client) Volumes(ctx context.Context) ([]admin.Volume, error) {
	return askFor(ctx, c, http.MethodGet, "/v1/volumes", nil, each(volumeOf))
}

func (c *Client) CreateVolume(ctx context.Context, name string, size int64) (admin.Volume, error) {
	return askFor(ctx, c, http.MethodPost, "/v1/volumes", v1.CreateVolume{Name: name, SizeBytes: size}, volumeOf)
}

func (c *Client) StartVolume(ctx context.Context, name string, size int64) (admin.Volume, error) {
	return askVolume(ctx, c, http.MethodPost, name, "/start", v1.Resize{SizeBytes: size})
}

func (c *Client) FinishVolume(ctx context.Context, scratch, name string) (admin.Volume, error) {
	return askVolume(ctx, c, http.MethodPost, name, "/finish", v1.FinishVolume{Scratch: scratch})
}

func (c *Client) ResizeVolume(ctx context.Context, name string, size int64) (admin.Volume, error) {
	return askVolume(ctx, c, http.MethodPatch, name, "", v1.Resize{SizeBytes: size})
}

func (c *Client) DeleteVolume(ctx context.Context, name string) error {
	_, err := askVolume(ctx, c, http.MethodDelete, name, "", nil)
	return err
}

func (c *Client) SnapshotVolume(ctx context.Context, src, name string) (admin.Volume, error) {
	return askVolume(ctx, c, http.MethodPost, src, "/snapshot", v1.NewName{Name: name})
}

func (c *Client) CloneVolume(ctx context.Context, src, name string) (admin.Volume, error) {
	return askVolume(ctx, c, http.MethodPost, src, "/clone", v1.NewName{Name: name})
}

// askVolume asks for something about one volume.
func askVolume(ctx context.Context, c *Client, method, name, what string, parameters any) (admin.Volume, error) {
	path, err := volumePath(name, what)
	if err != nil {
		return admin.Volume{}, err
	}
	return askFor(ctx, c, method, path, parameters, volumeOf)
}

// volumePath is the path of something about a volume.
func volumePath(name, what string) (string, error) {
	if name == "" || name[0] == '.' && !admin.IsScratchVolume(name) {
		// Hidden from administrators, and no path of a URL.
		return "", fmt.Errorf("volume %s: %w", name, backstore.ErrNotFound)
	}
	return "/v1/volumes/" + url.PathEscape(name) + what, nil
}

func (c *Client) Scrub(ctx context.Context, r admin.ScrubRequest, progress func(backstore.ScrubProgress)) (backstore.ScrubResult, error) {
	result, err := askLines[v1.ScrubProgress, v1.ScrubResult](ctx, c, "/v1/store/scrub", scrubRequestV1(r), heard(progress, scrubProgressOf))
	return scrubResultOf(result), err
}

// askLines sends a request whose answer is lines that say the progress, and the
// result in the last one.
func askLines[P, R any](ctx context.Context, c *Client, path string, parameters any, progress func(P)) (result R, err error) {
	resp, err := c.send(ctx, http.MethodPost, path, parameters)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var line v1.Line[P, R]
		if err := lines.Decode(&line); err != nil {
			return result, brokenAnswer(ctx, err)
		}
		switch {
		case line.Failure != nil && line.Error != "":
			return result, &Error{line.Kind, line.Error, line.Bytes}
		case line.Result != nil:
			return *line.Result, nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}

// ask sends a request and decodes the answer, if it has a body.
func ask[T any](ctx context.Context, c *Client, method, path string, parameters any) (result T, err error) {
	resp, err := c.send(ctx, method, path, parameters)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return result, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&result); err != nil {
		return result, brokenAnswer(ctx, err)
	}
	return result, nil
}

// send sends a request. An answer that is an error is returned as one; the
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

// sendBody sends a request with a body as it is.
func (c *Client) sendBody(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if c.secret != "" {
		req.Header.Set("Authorization", "Bearer "+c.secret)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, brokenAnswer(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var f v1.Failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&f); err != nil || f.Error == "" {
		f.Error = "the running odx answered " + resp.Status
	}
	if f.Kind == canceledKind {
		f.Error = "the running odx stopped before it was done"
	}
	return nil, &Error{f.Kind, f.Error, f.Bytes}
}

// brokenAnswer says that an answer did not come, or not whole.
func brokenAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("ask the running odx: %w", err)
}
