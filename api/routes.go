package api

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
)

// route is one request of the API.
type route struct {
	method, path string
	summary      string
	// status is the status code of a success.
	status int
	load   load
	role   role // that it needs
	change change
	do     func(c *call) (any, error)
}

// allRoutes returns every route.
func allRoutes() []route {
	return slices.Concat(routes, statusRoutes, offloadRoutes, fileRoutes, diffRoutes, diskRoutes, configRoutes, targetRoutes, sessionRoutes, migrationRoutes, peerRoutes, holdRoutes, streamRoutes, replicaRoutes, snapshotRoutes)
}

// routes are the routes of a store and its volumes.
var routes = []route{
	{http.MethodGet, "/v1/store", "Volumes, bytes, deduplication and tokens.", http.StatusOK, long, reads, looks, func(c *call) (any, error) {
		return asV1(StoreV1)(c.admin.StoreInfo(c.ctx))
	}},
	{http.MethodGet, "/v1/store/exclusive", "For each volume, and each file by file:NAME, the bytes that nothing else refers to.", http.StatusOK, long, reads, looks, func(c *call) (any, error) {
		return c.admin.Exclusive(c.ctx)
	}},
	{http.MethodPost, "/v1/store/check", "Prove references, segments and maps.", http.StatusOK, long, operates, looks, func(c *call) (any, error) {
		return asV1(CheckResultV1)(c.admin.Check(c.ctx))
	}},
	{http.MethodPost, "/v1/store/scrub", "Read and verify metadata and extents, and mend metadata; answers with lines that say the progress.", http.StatusOK, long, operates, changes("store scrub"), scrub},
	{http.MethodPost, "/v1/store/clean", "Give the space of dead data back.", http.StatusOK, long, operates, changes("store clean"), func(c *call) (any, error) {
		c.subject("store")
		return asV1(CleanResultV1)(c.admin.Clean(c.ctx))
	}},
	{http.MethodGet, "/v1/volumes", "All volumes, by name.", http.StatusOK, lists, reads, looks, func(c *call) (any, error) {
		return listV1(VolumeV1)(c.admin.Volumes(c.ctx))
	}},
	{http.MethodPost, "/v1/volumes", "Make a thin volume.", http.StatusCreated, short, operates, changes("volume create"), func(c *call) (any, error) {
		var p v1.CreateVolume
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject(objectOf(p.Name))
		return asV1(VolumeV1)(c.admin.CreateVolume(c.ctx, p.Name, p.SizeBytes))
	}},
	{http.MethodPost, "/v1/volumes/{name}/start", "Make a hidden volume that is to become this one when it is whole.", http.StatusCreated, short, operates, changes("volume start"), func(c *call) (any, error) {
		var p v1.Resize
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(VolumeV1)(c.admin.StartVolume(c.ctx, c.volume(), p.SizeBytes))
	}},
	{http.MethodPost, "/v1/volumes/{name}/finish", "Give a volume that is whole its name, which no other one may have.", http.StatusOK, short, operates, changes("volume finish"), func(c *call) (any, error) {
		var p v1.FinishVolume
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(VolumeV1)(c.admin.FinishVolume(c.ctx, p.Scratch, c.volume()))
	}},
	{http.MethodPatch, "/v1/volumes/{name}", "Make a volume larger, also while it is a LUN.", http.StatusOK, short, operates, changes("volume resize"), func(c *call) (any, error) {
		var p v1.Resize
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(VolumeV1)(c.admin.ResizeVolume(c.ctx, c.volumeAsItWas(), p.SizeBytes))
	}},
	{http.MethodDelete, "/v1/volumes/{name}", "Delete a volume that is no LUN.", http.StatusNoContent, short, administers, changes("volume delete"), func(c *call) (any, error) {
		return nil, c.admin.DeleteVolume(c.ctx, c.volumeAsItWas())
	}},
	{http.MethodPost, "/v1/volumes/{name}/snapshot", "Make a read-only volume that equals this one now.", http.StatusCreated, short, operates, changes("volume snapshot"), func(c *call) (any, error) {
		var p v1.NewName
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject(objectOf(p.Name))
		return asV1(VolumeV1)(c.admin.SnapshotVolume(c.ctx, c.request.PathValue("name"), p.Name))
	}},
	{http.MethodPost, "/v1/volumes/{name}/rename", "Give a volume that is no LUN another name.", http.StatusOK, short, operates, changes("volume rename"), func(c *call) (any, error) {
		var p v1.NewName
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(VolumeV1)(c.admin.RenameVolume(c.ctx, c.volumeAsItWas(), p.Name))
	}},
	{http.MethodPost, "/v1/volumes/{name}/revert", "Give the volume that this snapshot was made of, or another one, its content and size.", http.StatusOK, short, administers, changes("volume revert"), revert},
	{http.MethodPost, "/v1/volumes/{name}/clone", "Make a volume that equals this one now.", http.StatusCreated, short, operates, changes("volume clone"), func(c *call) (any, error) {
		var p v1.NewName
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject(objectOf(p.Name))
		return asV1(VolumeV1)(c.admin.CloneVolume(c.ctx, c.request.PathValue("name"), p.Name))
	}},
}

// noRoute handles requests without a route.
var noRoute = route{load: short, do: func(c *call) (any, error) {
	return nil, fmt.Errorf("%w: %s %s", errNoResource, c.request.Method, c.request.URL.Path)
}}

// progressPeriod is the interval between two lines of progress.
const progressPeriod = 100 * time.Millisecond

func scrub(c *call) (any, error) {
	var p v1.ScrubRequest
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	c.subject("store")
	var lastSent time.Time
	return asV1(ScrubResultV1)(c.admin.Scrub(c.ctx, scrubRequestOf(p), func(progress backstore.ScrubProgress) {
		if now := time.Now(); now.Sub(lastSent) >= progressPeriod {
			lastSent = now
			c.reportProgress(scrubProgressV1(progress))
		}
	}))
}

func revert(c *call) (any, error) {
	var p v1.Revert
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	force, err := c.flag("force")
	if err != nil {
		return nil, err
	}
	r := admin.RevertRequest{Snapshot: c.request.PathValue("name"), Volume: p.Volume, Force: force}
	c.revertedAsItWas(r)
	return asV1(VolumeV1)(c.admin.RevertVolume(c.ctx, r))
}
