package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// ErrNotRunning: no server answers for the store.
var ErrNotRunning = errors.New("no odx serves this store")

// maxAnswer bounds what the client reads of an answer, in bytes.
const maxAnswer = 64 << 20

// Client talks to the server of one store.
type Client struct {
	http http.Client
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
			return nil, ErrNotRunning
		}
		return conn, err
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Store describes the server's store.
func (c *Client) Store(ctx context.Context) (Store, error) {
	var s Store
	err := c.get(ctx, "/v1/store", &s)
	return s, err
}

// get decodes the answer to GET path into body.
func (c *Client) get(ctx context.Context, path string, body any) error {
	// The host is only what HTTP wants to see; dial knows the way.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://odx"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the running odx: %w", err)
	}
	defer resp.Body.Close()
	decoder := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		var f failure
		if err := decoder.Decode(&f); err != nil || f.Error == "" {
			f.Error = resp.Status
		}
		return fmt.Errorf("the running odx answered: %s", f.Error)
	}
	if err := decoder.Decode(body); err != nil {
		return fmt.Errorf("answer of the running odx: %w", err)
	}
	return nil
}
