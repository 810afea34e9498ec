package api

import (
	"context"
	"net/http"
	"net/url"

	"odx/admin"
	v1 "odx/api/v1"
)

// holdRoutes are the routes of what other stores of a pool hold.
var holdRoutes = []route{
	{http.MethodGet, "/v1/store/holds", "What other stores of the pool hold of this one.", http.StatusOK, lists, reads, looks, func(c *call) (any, error) {
		return listV1(StoreHoldV1)(c.admin.StoreHolds(c.ctx))
	}},
	{http.MethodDelete, "/v1/store/holds/{store}", "End the holds of a store that does not come back; what it has adopted is lost to it.", http.StatusOK, short, administers, changes("store holds end"), func(c *call) (any, error) {
		store := c.request.PathValue("store")
		c.subject("store " + store)
		n, err := c.admin.EndStoreHolds(c.ctx, store)
		return v1.EndedHolds{Segments: n}, err
	}},
}

// StoreHoldV1 returns the JSON of a hold of a store.
func StoreHoldV1(h admin.StoreHold) v1.StoreHold { return v1.StoreHold(h) }

func storeHoldOf(h v1.StoreHold) admin.StoreHold { return admin.StoreHold(h) }

// StoreHolds implements admin.Holder.
func (c *Client) StoreHolds(ctx context.Context) ([]admin.StoreHold, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/store/holds", nil, each(storeHoldOf))
}

// EndStoreHolds implements admin.Holder.
func (c *Client) EndStoreHolds(ctx context.Context, store string) (int, error) {
	ended, err := roundTrip[v1.EndedHolds](ctx, c, http.MethodDelete, "/v1/store/holds/"+url.PathEscape(store), nil)
	return ended.Segments, err
}
