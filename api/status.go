package api

import (
	"context"
	"net/http"

	"odx/admin"
)

// Status implements Administrator.
func (c *Client) Status(ctx context.Context) (admin.Status, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/status", nil, statusOf)
}

// statusRoutes are the routes of the server's status.
var statusRoutes = []route{
	{http.MethodGet, "/v1/status", "What is served: portals, LUNs, and the initiators that are logged in.", http.StatusOK, short, reads, looks, func(c *call) (any, error) {
		return asV1(StatusV1)(c.admin.Status(c.ctx))
	}},
}
