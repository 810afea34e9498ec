package api

import (
	"context"
	"io"
	"net/http"
)

// Text returns what the server serves as text at a path: metrics, health, profiles, the
// configuration.
func (c *Client) Text(ctx context.Context, path string) ([]byte, error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return nil, transportError(ctx, err)
	}
	return text, nil
}
