package api

import (
	"fmt"
	"net/http"
	"strconv"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/tokens"
)

// offloadRoutes are the routes of tokens and data.
var offloadRoutes = []route{
	{http.MethodPost, "/v1/tokens", "Make a token that stands for a range of a volume as it is now.", http.StatusCreated, short, operates, changes("token create"), func(c *call) (any, error) {
		var p v1.TokenRequest
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject(objectOf(p.Volume))
		c.changed.After = v1.TokenInfo{} // never the token, which is the right to use it
		made, err := c.admin.CreateToken(c.ctx, tokenRequestOf(p))
		if err != nil {
			return nil, err
		}
		c.changed.After = TokenInfoV1(made.TokenInfo)
		return MadeTokenV1(made), nil
	}},
	{http.MethodGet, "/v1/tokens", "Live tokens, the oldest first.", http.StatusOK, lists, reads, looks, func(c *call) (any, error) {
		return listV1(TokenInfoV1)(c.admin.Tokens(c.ctx))
	}},
	{http.MethodGet, "/v1/tokens/{id}", "A live token.", http.StatusOK, short, reads, looks, func(c *call) (any, error) {
		id, err := c.tokenID()
		if err != nil {
			return nil, err
		}
		return asV1(TokenInfoV1)(c.admin.Token(c.ctx, id))
	}},
	{http.MethodDelete, "/v1/tokens/{id}", "Revoke a token.", http.StatusNoContent, short, operates, changes("token revoke"), func(c *call) (any, error) {
		id, err := c.tokenID()
		if err != nil {
			return nil, err
		}
		c.tokenAsItWas(id)
		return nil, c.admin.DeleteToken(c.ctx, id)
	}},
	{http.MethodGet, "/v1/copies", "Counters of copy commands and tokens since the start, and the last refusals with their reasons.", http.StatusOK, short, reads, looks, func(c *call) (any, error) {
		return asV1(CopyStatsV1)(c.admin.CopyStats(c.ctx))
	}},
	{http.MethodPost, "/v1/tokens/write", "Make a range of a volume equal to bytes of a token; may do less, and says how much.", http.StatusOK, short, operates, writes("token write"), func(c *call) (any, error) {
		var p v1.TokenWrite
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject(objectOf(p.Volume))
		done, err := c.admin.WriteToken(c.ctx, tokenWriteOf(p))
		c.changed.After, c.changedBytes = v1.DataRange{Offset: p.Offset, Length: done.Bytes}, done.Bytes
		if err != nil && done.Bytes > 0 {
			err = &partialError{err, done.Bytes}
		}
		return TokenWrittenV1(done), err
	}},
	{http.MethodPost, "/v1/tokens/read", "Bytes of a token, at most 4 MiB; fewer than asked for at its end.", http.StatusOK, givesData, operates, looks, func(c *call) (any, error) {
		var p v1.TokenRead
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		t, err := admin.ParseToken(p.Token)
		if err != nil {
			return nil, err
		}
		if err := checkDataLength(p.Length); err != nil {
			return nil, err
		}
		c.held.shrink(int64(len(c.parameters)) + p.Length)
		data := make([]byte, p.Length)
		n, err := c.admin.ReadToken(c.ctx, t, data, p.Offset)
		return data[:n], err
	}},
	{http.MethodPost, "/v1/tokens/revoke", "Revoke a token by itself, also one without a record.", http.StatusNoContent, short, operates, changes("token revoke"), func(c *call) (any, error) {
		var p v1.Token
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		t, err := admin.ParseToken(p.Token)
		if err != nil {
			return nil, err
		}
		c.tokenAsItWas(t.ID())
		return nil, c.admin.RevokeToken(c.ctx, t)
	}},
	{http.MethodPost, "/v1/tokens/verify", "Compare a range of a volume with what a checksum token proves.", http.StatusOK, long, operates, looks, func(c *call) (any, error) {
		var p v1.TokenWrite
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(TokenVerifiedV1)(c.admin.VerifyToken(c.ctx, tokenWriteOf(p)))
	}},
	{http.MethodGet, "/v1/volumes/{name}/data", "Bytes of a volume from ?offset=, ?length= of them, at most 4 MiB.", http.StatusOK, givesData, operates, looks, func(c *call) (any, error) {
		off, length, err := c.window()
		if err != nil {
			return nil, err
		}
		if err := checkDataLength(length); err != nil {
			return nil, err
		}
		data := make([]byte, length)
		return data, c.admin.ReadVolume(c.ctx, c.request.PathValue("name"), data, off)
	}},
	{http.MethodPut, "/v1/volumes/{name}/data", "Write the body, at most 4 MiB, at ?offset=.", http.StatusNoContent, takesData, operates, writes("data write"), func(c *call) (any, error) {
		off, err := c.number("offset")
		if err != nil {
			return nil, err
		}
		name := c.data(off, int64(len(c.parameters)))
		return nil, c.admin.WriteVolume(c.ctx, name, c.parameters, off)
	}},
	{http.MethodDelete, "/v1/volumes/{name}/data", "Make ?length= bytes from ?offset= read as zeros.", http.StatusNoContent, long, operates, writes("data zero"), func(c *call) (any, error) {
		off, length, err := c.window()
		if err != nil {
			return nil, err
		}
		return nil, c.admin.ZeroVolume(c.ctx, c.data(off, length), off, length)
	}},
	{http.MethodGet, "/v1/volumes/{name}/next-data", "The first range at or after ?offset= that has something else than zeros.", http.StatusOK, long, operates, looks, func(c *call) (any, error) {
		off, err := c.number("offset")
		if err != nil {
			return nil, err
		}
		var r v1.DataRange
		r.Offset, r.Length, err = c.admin.NextData(c.ctx, c.request.PathValue("name"), off)
		return r, err
	}},
	{http.MethodPost, "/v1/volumes/{name}/flush", "Make durable what was written before.", http.StatusNoContent, short, operates, looks, func(c *call) (any, error) {
		return nil, c.admin.FlushVolume(c.ctx, c.request.PathValue("name"))
	}},
}

func checkDataLength(n int64) error {
	if n < 0 || n > maxData {
		return fmt.Errorf("%w: %d bytes in one request; ask for 0 to %d", blockdev.ErrInvalid, n, maxData)
	}
	return nil
}

func (c *call) tokenID() (tokens.ID, error) {
	id, err := tokens.ParseID(c.request.PathValue("id"))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	return id, nil
}

// number reads a number of the query.
func (c *call) number(key string) (int64, error) {
	text := c.request.URL.Query().Get(key)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s=%q in the query is not a number of bytes", blockdev.ErrInvalid, key, text)
	}
	return n, nil
}

// window reads a range of bytes of the query.
func (c *call) window() (off, length int64, err error) {
	if off, err = c.number("offset"); err != nil {
		return 0, 0, err
	}
	length, err = c.number("length")
	return off, length, err
}
