package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/tokens"
)

func (c *Client) CreateToken(ctx context.Context, r admin.TokenRequest) (admin.MadeToken, error) {
	made, err := roundTrip[v1.MadeToken](ctx, c, http.MethodPost, "/v1/tokens", tokenRequestV1(r))
	if err != nil {
		return admin.MadeToken{}, err
	}
	return madeTokenOf(made)
}

func (c *Client) WriteToken(ctx context.Context, r admin.TokenWrite) (admin.TokenWritten, error) {
	done, err := requestAs(ctx, c, http.MethodPost, "/v1/tokens/write", tokenWriteV1(r), tokenWrittenOf)
	var partial *Error
	if errors.As(err, &partial) {
		done.Bytes = partial.Bytes
	}
	return done, err
}

func (c *Client) Tokens(ctx context.Context) ([]admin.TokenInfo, error) {
	list, err := roundTrip[[]v1.TokenInfo](ctx, c, http.MethodGet, "/v1/tokens", nil)
	if err != nil {
		return nil, err
	}
	return tokenInfosOf(list)
}

func (c *Client) Token(ctx context.Context, id tokens.ID) (admin.TokenInfo, error) {
	info, err := roundTrip[v1.TokenInfo](ctx, c, http.MethodGet, "/v1/tokens/"+id.String(), nil)
	if err != nil {
		return admin.TokenInfo{}, err
	}
	return tokenInfoOf(info)
}

func (c *Client) CopyStats(ctx context.Context) (admin.CopyStats, error) {
	stats, err := roundTrip[v1.CopyStats](ctx, c, http.MethodGet, "/v1/copies", nil)
	if err != nil {
		return admin.CopyStats{}, err
	}
	return copyStatsOf(stats)
}

func (c *Client) DeleteToken(ctx context.Context, id tokens.ID) error {
	_, err := roundTrip[struct{}](ctx, c, http.MethodDelete, "/v1/tokens/"+id.String(), nil)
	return err
}

func (c *Client) ReadToken(ctx context.Context, t *tokens.Token, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+maxData)]
		n, err := c.fetch(ctx, part, http.MethodPost, "/v1/tokens/read", v1.TokenRead{Token: t[:], Offset: off + int64(done), Length: int64(len(part))})
		done += n
		if err != nil || n < len(part) {
			return done, err
		}
	}
	return done, nil
}

func (c *Client) RevokeToken(ctx context.Context, t *tokens.Token) error {
	_, err := roundTrip[struct{}](ctx, c, http.MethodPost, "/v1/tokens/revoke", v1.Token{Token: t[:]})
	return err
}

func (c *Client) VerifyToken(ctx context.Context, r admin.TokenWrite) (admin.TokenVerified, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/tokens/verify", tokenWriteV1(r), tokenVerifiedOf)
}

func (c *Client) ReadVolume(ctx context.Context, name string, p []byte, off int64) error {
	return inParts(p, off, func(part []byte, off int64) error {
		path, err := volumePath(name, window("/data", off, int64(len(part))))
		if err != nil {
			return err
		}
		n, err := c.fetch(ctx, part, http.MethodGet, path, nil)
		if err == nil && n < len(part) {
			err = transportError(ctx, io.ErrUnexpectedEOF)
		}
		return err
	})
}

func (c *Client) WriteVolume(ctx context.Context, name string, p []byte, off int64) error {
	return inParts(p, off, func(part []byte, off int64) error {
		path, err := volumePath(name, window("/data", off, int64(len(part))))
		if err != nil {
			return err
		}
		return c.drop(c.sendBody(ctx, http.MethodPut, path, bytes.NewReader(part)))
	})
}

func (c *Client) ZeroVolume(ctx context.Context, name string, off, length int64) error {
	path, err := volumePath(name, window("/data", off, length))
	if err != nil {
		return err
	}
	return c.drop(c.send(ctx, http.MethodDelete, path, nil))
}

func (c *Client) FlushVolume(ctx context.Context, name string) error {
	path, err := volumePath(name, "/flush")
	if err != nil {
		return err
	}
	return c.drop(c.send(ctx, http.MethodPost, path, nil))
}

func (c *Client) NextData(ctx context.Context, name string, off int64) (start, length int64, err error) {
	path, err := volumePath(name, window("/next-data", off, 0))
	if err != nil {
		return 0, 0, err
	}
	r, err := roundTrip[v1.DataRange](ctx, c, http.MethodGet, path, nil)
	return r.Offset, r.Length, err
}

// window adds a range to a path.
func window(what string, off, length int64) string {
	return fmt.Sprintf("%s?offset=%d&length=%d", what, off, length)
}

// inParts calls do with parts of p that one request can carry.
func inParts(p []byte, off int64, do func(part []byte, off int64) error) error {
	for len(p) > 0 {
		n := min(len(p), maxData)
		if err := do(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// fetch fills p with the body of the response and returns its length.
func (c *Client) fetch(ctx context.Context, p []byte, method, path string, parameters any) (int, error) {
	resp, err := c.send(ctx, method, path, parameters)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.ReadFull(resp.Body, p)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		return n, nil // shorter than p
	}
	if err != nil {
		return n, transportError(ctx, err)
	}
	return n, nil
}

// drop closes the body of a response.
func (c *Client) drop(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
