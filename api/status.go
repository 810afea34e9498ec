package api

import (
	"context"
	"net/http"

	"odx/target"
)

// Status is what a server serves, and to whom.
type Status = target.Status

// Session is an initiator that is logged in, SessionLUN a LUN as it finds it.
type (
	Session    = target.Session
	SessionLUN = target.SessionLUN
)

// Status implements Administrator.
func (l *Local) Status(context.Context) (Status, error) {
	s, serving := l.service.Status()
	if !serving {
		return Status{}, ErrNotRunning
	}
	return s, nil
}

// Status implements Administrator.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// statusRoutes are the requests about what is served.
var statusRoutes = []route{
	{http.MethodGet, "/v1/status", "What is served: portals, LUNs, and the initiators that are logged in.", http.StatusOK, false, func(c *call) (any, error) {
		return c.admin.Status(c.ctx)
	}},
}
