package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/blockdev"
)

// errNotLive: the server cannot change its configuration, because it rescues a store.
var errNotLive = errors.New("this server does not change its configuration while it runs; change the file and restart it")

// live is a handler that needs what changes a running server.
func live(do func(c *call, l admin.Live) (any, error)) func(c *call) (any, error) {
	return func(c *call) (any, error) {
		if c.live == nil {
			return nil, errNotLive
		}
		return do(c, c.live)
	}
}

// document is an answer that is text.
type document struct {
	contentType string
	text        []byte
}

const yamlType = "application/yaml"

// configRoutes are the routes of the configuration as a whole.
var configRoutes = []route{
	{http.MethodGet, "/v1/config", "The configuration of the server as YAML, with all defaults; secrets are masked.", http.StatusOK, givesConfig, reads, looks, live(func(c *call, l admin.Live) (any, error) {
		text, err := l.Config(c.ctx)
		return document{yamlType, text}, err
	})},
	{http.MethodGet, "/v1/config/file", "The text of the configuration file, with comments and secrets; its ETag is for If-Match of PUT /v1/config.", http.StatusOK, givesConfig, administers, looks, live(func(c *call, l admin.Live) (any, error) {
		text, err := l.ConfigFile(c.ctx)
		if err == nil {
			c.writer.Header().Set("ETag", etagOf(text))
		}
		return document{yamlType, text}, err
	})},
	{http.MethodPut, "/v1/config", "Make the body the configuration file, and apply it; all of it or nothing.", http.StatusOK, takesConfig, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		basedOn, err := c.ifMatch()
		if err != nil {
			return nil, err
		}
		c.subject("file")
		done, err := l.PutConfig(c.ctx, c.parameters, basedOn)
		if err != nil {
			return nil, err
		}
		c.writer.Header().Set("ETag", etagOf(c.parameters))
		return ReloadedV1(done), nil
	})},
	{http.MethodPost, "/v1/config/compare", "What PUT /v1/config would change, and which of that needs a restart; changes nothing.", http.StatusOK, takesConfig, administers, looks, live(func(c *call, l admin.Live) (any, error) {
		list, err := l.CompareConfig(c.ctx, c.parameters)
		if err != nil {
			return nil, err
		}
		return v1.Compared{Changes: some(ConfigChangesV1(list))}, nil
	})},
	{http.MethodPost, "/v1/reload", "Read the configuration file again, and apply what has changed in it; all of it or nothing.", http.StatusOK, short, administers, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		c.subject("file")
		return asV1(ReloadedV1)(l.Reload(c.ctx))
	})},
}

// etagOf returns the entity tag of the text of a configuration file.
func etagOf(text []byte) string { return `"` + admin.Digest(text) + `"` }

// ifMatch returns the digest of the file that the request is based on; empty if it may be
// any.
func (c *call) ifMatch() (string, error) {
	given := strings.TrimSpace(strings.Join(c.request.Header.Values("If-Match"), ","))
	if given == "" || given == "*" {
		return "", nil
	}
	digest, quoted := strings.CutPrefix(given, `"`)
	digest, closed := strings.CutSuffix(digest, `"`)
	if !quoted || !closed || strings.ContainsAny(digest, `",`) || digest == "" {
		return "", fmt.Errorf("%w: If-Match is %s; send the ETag of GET /v1/config/file", blockdev.ErrInvalid, given)
	}
	return digest, nil
}
