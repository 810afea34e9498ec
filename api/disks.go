package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"odx/admin"
	"strings"
	"time"

	"odx/backstore"
)

// diskRoutes are the requests about virtual disks.
var diskRoutes = []route{
	{http.MethodGet, "/v1/files/{name}/disk", "The virtual disk in a file.", http.StatusOK, false, func(c *call) (any, error) {
		return c.admin.Disk(c.ctx, c.request.PathValue("name"))
	}},
	{http.MethodPost, "/v1/files/{name}/disk/check", "Look for what is wrong with the virtual disk in a file.", http.StatusOK, true, func(c *call) (any, error) {
		return c.admin.CheckDisk(c.ctx, c.request.PathValue("name"))
	}},
	{http.MethodPost, "/v1/disks", "Make, convert, merge, compact, defragment or resize a virtual disk; answers with lines that say the progress.", http.StatusOK, true, changeDisk},
}

func changeDisk(c *call) (any, error) {
	var r admin.DiskRequest
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	var told time.Time
	return c.admin.ChangeDisk(c.ctx, r, func(p admin.DiskProgress) {
		if now := time.Now(); now.Sub(told) >= progressPeriod {
			told = now
			c.tell(p)
		}
	})
}

func (c *Client) Disk(ctx context.Context, name string) (admin.Disk, error) {
	path, err := diskPath(name, "")
	if err != nil {
		return admin.Disk{}, err
	}
	return ask[admin.Disk](ctx, c, http.MethodGet, path, nil)
}

func (c *Client) CheckDisk(ctx context.Context, name string) (admin.DiskCheck, error) {
	path, err := diskPath(name, "/check")
	if err != nil {
		return admin.DiskCheck{}, err
	}
	return ask[admin.DiskCheck](ctx, c, http.MethodPost, path, nil)
}

// diskPath is the path of something about the virtual disk in a file.
func diskPath(name, what string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") {
		// No path of a URL, and no name that a file can have.
		return "", fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return "/v1/files/" + url.PathEscape(name) + "/disk" + what, nil
}

func (c *Client) ChangeDisk(ctx context.Context, r admin.DiskRequest, progress func(admin.DiskProgress)) (admin.DiskResult, error) {
	return askLines[admin.DiskProgress, admin.DiskResult](ctx, c, "/v1/disks", r, progress)
}
