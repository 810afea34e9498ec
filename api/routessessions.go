package api

import (
	"context"
	"fmt"
	"net/http"

	"odx/admin"
)

// sessionRoutes are the routes of sessions, and of what they do to LUNs.
var sessionRoutes = []route{
	{http.MethodGet, "/v1/sessions", "The sessions, the oldest first, with their negotiated keys and their traffic.", http.StatusOK, lists, reads, looks, live(func(c *call, l admin.Live) (any, error) {
		return listV1(SessionV1)(l.Sessions(c.ctx))
	})},
	{http.MethodDelete, "/v1/sessions/{tsih}", "Ask the initiator of a session to log out, and end the session then.", http.StatusNoContent, short, operates, reconfigures, live(func(c *call, l admin.Live) (any, error) {
		tsih, err := c.pathNumber("tsih")
		if err != nil {
			return nil, err
		}
		c.subject(fmt.Sprintf("session %d", tsih))
		return nil, l.EndSession(c.ctx, tsih)
	})},
	{http.MethodGet, "/v1/luns", "Counters of the LUNs, by kind of command, of all initiators and of each.", http.StatusOK, lists, reads, looks, live(func(c *call, l admin.Live) (any, error) {
		return listV1(LUNStatsV1)(l.LUNStats(c.ctx))
	})},
}

func (c *Client) Sessions(ctx context.Context) ([]admin.Session, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/sessions", nil, each(sessionOf))
}

func (c *Client) EndSession(ctx context.Context, tsih uint16) error {
	return c.drop(c.send(ctx, http.MethodDelete, fmt.Sprintf("/v1/sessions/%d", tsih), nil))
}

func (c *Client) LUNStats(ctx context.Context) ([]admin.LUNStats, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/luns", nil, each(lunStatsOf))
}
