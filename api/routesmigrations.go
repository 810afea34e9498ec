package api

import (
	"context"
	"net/http"

	"odx/admin"
	v1 "odx/api/v1"
)

// migrationRoutes are the routes of migrations of volumes.
var migrationRoutes = []route{
	{http.MethodGet, "/v1/migrations", "The migrations of volumes, those that have ended too until they are finished.", http.StatusOK, lists, reads, looks, live(func(c *call, l admin.Live) (any, error) {
		return listV1(MigrationV1)(l.Migrations(c.ctx))
	})},
	{http.MethodPost, "/v1/migrations", "Begin to move the LUNs on a volume to another volume, a view, another server or the LUN of another target, while they are in use.", http.StatusCreated, short, administers, changes("volume migrate start"), live(func(c *call, l admin.Live) (any, error) {
		var p v1.MigrationRequest
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject("volume " + p.Volume)
		r, err := migrationRequestOf(p)
		if err != nil {
			return nil, err
		}
		return asV1(MigrationV1)(l.StartMigration(c.ctx, r))
	})},
	{http.MethodPost, "/v1/migrations/{name}/abort", "Abort a migration; the LUNs stay where they are.", http.StatusOK, long, administers, changes("volume migrate abort"), live(func(c *call, l admin.Live) (any, error) {
		name := c.request.PathValue("name")
		c.subject("volume " + name)
		return asV1(MigrationV1)(l.AbortMigration(c.ctx, name))
	})},
	{http.MethodPost, "/v1/migrations/{name}/finish", "Forget a migration that has ended, and delete the volume that its LUNs have left.", http.StatusOK, long, administers, changes("volume migrate finish"), live(func(c *call, l admin.Live) (any, error) {
		var p v1.FinishMigration
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		name := c.request.PathValue("name")
		c.subject("volume " + name)
		return asV1(MigrationV1)(l.FinishMigration(c.ctx, name, p.KeepSource))
	})},
}

func (c *Client) Migrations(ctx context.Context) ([]admin.Migration, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/migrations", nil, each(migrationOf))
}

func (c *Client) StartMigration(ctx context.Context, r admin.MigrationRequest) (admin.Migration, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/migrations", migrationRequestV1(r), migrationOf)
}

func (c *Client) AbortMigration(ctx context.Context, volume string) (admin.Migration, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/migrations/"+segmentOf(volume)+"/abort", nil, migrationOf)
}

func (c *Client) FinishMigration(ctx context.Context, volume string, keepSource bool) (admin.Migration, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/migrations/"+segmentOf(volume)+"/finish", v1.FinishMigration{KeepSource: keepSource}, migrationOf)
}
