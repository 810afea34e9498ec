package api

import (
	"context"
	"net/http"

	"odx/admin"
)

// Status implements Administrator.
func (c *Client) Status(ctx context.Context) (admin.Status, error) {
	return ask[admin.Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// statusRoutes are the requests about what is served.
var statusRoutes = []route{
	{http.MethodGet, "/v1/status", "What is served: portals, LUNs, and the initiators that are logged in.", http.StatusOK, false, func(c *call) (any, error) {
		return c.admin.Status(c.ctx)
	}},
}
