package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/conf"
)

// The methods of this file implement admin.Live.

func (c *Client) Config(ctx context.Context) ([]byte, error) { return c.Text(ctx, "/v1/config") }

func (c *Client) ConfigFile(ctx context.Context) ([]byte, error) {
	return c.Text(ctx, "/v1/config/file")
}

func (c *Client) PutConfig(ctx context.Context, text []byte, basedOn string) (admin.Reloaded, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.base+"/v1/config", bytes.NewReader(text))
	if err != nil {
		return admin.Reloaded{}, err
	}
	if basedOn != "" {
		req.Header.Set("If-Match", `"`+basedOn+`"`)
	}
	done, err := configAnswer[v1.Reloaded](c, req)
	return reloadedOf(done), err
}

func (c *Client) CompareConfig(ctx context.Context, text []byte) ([]conf.Change, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/config/compare", bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	compared, err := configAnswer[v1.Compared](c, req)
	return each(configChangeOf)(compared.Changes), err
}

// configAnswer sends a request whose body is a configuration, and decodes the answer.
func configAnswer[T any](c *Client, req *http.Request) (answer T, err error) {
	req.Header.Set("Content-Type", yamlType)
	resp, err := c.exchange(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxResponse)).Decode(&answer); err != nil {
		return answer, transportError(req.Context(), err)
	}
	return answer, nil
}

func (c *Client) Reload(ctx context.Context) (admin.Reloaded, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/reload", nil, reloadedOf)
}

// EditConfig implements admin.Live. An edit is the request of its route; other edits, and
// several at once, are made here, of the file as it is.
func (c *Client) EditConfig(ctx context.Context, edits ...conf.Edit) (admin.Reloaded, error) {
	if len(edits) == 1 {
		if r := requestOfEdit(edits[0]); r != nil {
			return requestAs(ctx, c, r.method, r.path, r.parameters, reloadedOf)
		}
	}
	text, err := c.ConfigFile(ctx)
	if err != nil {
		return admin.Reloaded{}, err
	}
	next, err := conf.Apply("configuration", text, edits...)
	if err != nil {
		return admin.Reloaded{}, err
	}
	return c.PutConfig(ctx, next, admin.Digest(text))
}

// editRequest is the request of an edit.
type editRequest struct {
	method, path string
	parameters   any // nil for none
}

// requestOfEdit returns the request of an edit; nil if it has none.
func requestOfEdit(e conf.Edit) *editRequest {
	switch e := e.(type) {
	case conf.AddTarget:
		return &editRequest{http.MethodPost, "/v1/targets", v1.CreateTarget{Name: e.Name, LUNs: some(each(newLUNV1)(e.LUNs)), PortalGroups: e.PortalGroups}}
	case conf.RemoveTarget:
		return &editRequest{http.MethodDelete, placePath(e.Name), nil}
	case conf.AddLUN:
		return &editRequest{http.MethodPost, placePath(e.Target) + "/luns", newLUNV1(e.LUN)}
	case conf.RemoveLUN:
		return &editRequest{http.MethodDelete, placePath(e.Target) + "/luns/" + strconv.Itoa(int(e.Number)), nil}
	case conf.AddUser:
		return &editRequest{http.MethodPost, placePath(e.Target) + "/users", v1.AddUser{User: userV1(e.User), SecretSource: secretV1(e.User.Secret)}}
	case conf.SetUser:
		return &editRequest{http.MethodPatch, placePath(e.Target) + "/users/" + segmentOf(e.Name), setUserV1(e)}
	case conf.RemoveUser:
		return &editRequest{http.MethodDelete, placePath(e.Target) + "/users/" + segmentOf(e.Name), nil}
	case conf.AddAccess:
		p := v1.AddAccess{Access: accessV1(e.Access)}
		if e.At >= 0 {
			p.At = &e.At
		}
		return &editRequest{http.MethodPost, placePath(e.Target) + "/access", p}
	case conf.RemoveAccess:
		return &editRequest{http.MethodDelete, placePath(e.Target) + "/access/" + strconv.Itoa(e.Index), nil}
	case conf.PauseSnapshots:
		if e.Pause {
			return &editRequest{http.MethodPost, policyPath(e.Policy) + "/pause", nil}
		}
		return &editRequest{http.MethodPost, policyPath(e.Policy) + "/resume", nil}
	default:
		return nil
	}
}

func setUserV1(e conf.SetUser) (p v1.SetUser) {
	if e.Secret != nil {
		p.SecretSource = secretV1(*e.Secret)
	}
	if e.Initiators != nil {
		p.Initiators = new(some(textsOf(*e.Initiators)))
	}
	return p
}

// placePath returns the path of a target, or of discovery.
func placePath(target string) string {
	if target == "" {
		return "/v1/discovery"
	}
	return "/v1/targets/" + segmentOf(target)
}

// segmentOf returns a name as a segment of a path. A name of dots would be a step in it.
func segmentOf(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}
