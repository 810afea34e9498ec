package api

import (
	"fmt"
	"net/http"
	"odx/admin"
	"slices"
	"time"

	"odx/backstore"
)

// route is one request of the API.
type route struct {
	method, path string
	summary      string
	// status is that of a success.
	status int
	// long says that it can take minutes: it ends when the server stops.
	long bool
	do   func(c *call) (any, error)
}

// allRoutes returns every request that is answered.
func allRoutes() []route {
	return slices.Concat(routes, statusRoutes, offloadRoutes, fileRoutes, diskRoutes)
}

// routes are the requests about a store and its volumes.
var routes = []route{
	{http.MethodGet, "/v1/store", "Volumes, bytes, deduplication and tokens.", http.StatusOK, true, func(c *call) (any, error) {
		return c.admin.StoreInfo(c.ctx)
	}},
	{http.MethodGet, "/v1/store/exclusive", "For each volume the bytes that nothing else refers to.", http.StatusOK, true, func(c *call) (any, error) {
		return c.admin.Exclusive(c.ctx)
	}},
	{http.MethodPost, "/v1/store/check", "Prove references, segments and maps.", http.StatusOK, true, func(c *call) (any, error) {
		return c.admin.Check(c.ctx)
	}},
	{http.MethodPost, "/v1/store/scrub", "Read and verify metadata and extents, and mend metadata; answers with lines that say the progress.", http.StatusOK, true, scrub},
	{http.MethodPost, "/v1/store/clean", "Give the space of dead data back.", http.StatusOK, true, func(c *call) (any, error) {
		return c.admin.Clean(c.ctx)
	}},
	{http.MethodGet, "/v1/volumes", "All volumes, by name.", http.StatusOK, false, func(c *call) (any, error) {
		return c.admin.Volumes(c.ctx)
	}},
	{http.MethodPost, "/v1/volumes", "Make a thin volume.", http.StatusCreated, false, func(c *call) (any, error) {
		var p createParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.CreateVolume(c.ctx, p.Name, p.SizeBytes)
	}},
	{http.MethodPost, "/v1/volumes/{name}/start", "Make a hidden volume that is to become this one when it is whole.", http.StatusCreated, false, func(c *call) (any, error) {
		var p resizeParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.StartVolume(c.ctx, c.request.PathValue("name"), p.SizeBytes)
	}},
	{http.MethodPost, "/v1/volumes/{name}/finish", "Give a volume that is whole its name, which no other one may have.", http.StatusOK, false, func(c *call) (any, error) {
		var p finishParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.FinishVolume(c.ctx, p.Scratch, c.request.PathValue("name"))
	}},
	{http.MethodPatch, "/v1/volumes/{name}", "Make a volume larger, also while it is a LUN.", http.StatusOK, false, func(c *call) (any, error) {
		var p resizeParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.ResizeVolume(c.ctx, c.request.PathValue("name"), p.SizeBytes)
	}},
	{http.MethodDelete, "/v1/volumes/{name}", "Delete a volume that is no LUN.", http.StatusNoContent, false, func(c *call) (any, error) {
		return nil, c.admin.DeleteVolume(c.ctx, c.request.PathValue("name"))
	}},
	{http.MethodPost, "/v1/volumes/{name}/snapshot", "Make a read-only volume that equals this one now.", http.StatusCreated, false, func(c *call) (any, error) {
		var p copyParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.SnapshotVolume(c.ctx, c.request.PathValue("name"), p.Name)
	}},
	{http.MethodPost, "/v1/volumes/{name}/clone", "Make a volume that equals this one now.", http.StatusCreated, false, func(c *call) (any, error) {
		var p copyParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.CloneVolume(c.ctx, c.request.PathValue("name"), p.Name)
	}},
}

// noRoute answers what no route does.
var noRoute = route{do: func(c *call) (any, error) {
	return nil, fmt.Errorf("%w: %s %s", errNoResource, c.request.Method, c.request.URL.Path)
}}

// Parameters of requests.
type (
	createParameters struct {
		Name      string `json:"name"`
		SizeBytes int64  `json:"size_bytes"`
	}
	resizeParameters struct {
		SizeBytes int64 `json:"size_bytes"`
	}
	finishParameters struct {
		// Scratch is the name that start gave.
		Scratch string `json:"scratch"`
	}
	copyParameters struct {
		// Name is that of the new volume.
		Name string `json:"name"`
	}
)

// progressPeriod is how often the progress of a long operation is told.
const progressPeriod = 100 * time.Millisecond

func scrub(c *call) (any, error) {
	var p admin.ScrubRequest
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	var told time.Time
	return c.admin.Scrub(c.ctx, p, func(progress backstore.ScrubProgress) {
		if now := time.Now(); now.Sub(told) >= progressPeriod {
			told = now
			c.tell(progress)
		}
	})
}
