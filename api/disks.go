package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/vhd"
)

// diskRoutes are the routes of virtual disks.
var diskRoutes = []route{
	{http.MethodGet, "/v1/files/{name}/disk", "The virtual disk in a file.", http.StatusOK, short, reads, looks, func(c *call) (any, error) {
		return asV1(DiskV1)(c.admin.Disk(c.ctx, c.request.PathValue("name")))
	}},
	{http.MethodPost, "/v1/files/{name}/disk/check", "Look for what is wrong with the virtual disk in a file.", http.StatusOK, long, operates, looks, func(c *call) (any, error) {
		return asV1(DiskCheckV1)(c.admin.CheckDisk(c.ctx, c.request.PathValue("name")))
	}},
	{http.MethodPost, "/v1/disks", "Make, convert, merge, compact, defragment or resize a virtual disk; answers with lines that say the progress.", http.StatusOK, long, operates, changes("disk change"), changeDisk},
}

func changeDisk(c *call) (any, error) {
	var r v1.DiskRequest
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	c.subject(fileSubject(cmp.Or(r.Destination, r.Source)))
	if r.Operation == string(vhd.ToVolume) {
		c.subject(objectOf(r.Destination))
	}
	c.changed.What = "disk " + r.Operation
	c.changed.Before, c.changed.After = c.filesNamed(r.Destination, r.Source), map[string]any{"request": r}
	var lastSent time.Time
	result, err := c.admin.ChangeDisk(c.ctx, diskRequestOf(r), func(p admin.DiskProgress) {
		if now := time.Now(); now.Sub(lastSent) >= progressPeriod {
			lastSent = now
			c.reportProgress(diskProgressV1(p))
		}
	})
	if err != nil {
		return nil, err
	}
	c.changed.After = map[string]any{"request": r, "result": DiskResultV1(result)}
	return DiskResultV1(result), nil
}

func (c *Client) Disk(ctx context.Context, name string) (admin.Disk, error) {
	path, err := diskPath(name, "")
	if err != nil {
		return admin.Disk{}, err
	}
	return requestAs(ctx, c, http.MethodGet, path, nil, diskOf)
}

func (c *Client) CheckDisk(ctx context.Context, name string) (admin.DiskCheck, error) {
	path, err := diskPath(name, "/check")
	if err != nil {
		return admin.DiskCheck{}, err
	}
	return requestAs(ctx, c, http.MethodPost, path, nil, diskCheckOf)
}

// diskPath returns the path of a resource of the virtual disk in a file.
func diskPath(name, what string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") {
		// No file has such a name, and it is no path.
		return "", fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return "/v1/files/" + url.PathEscape(name) + "/disk" + what, nil
}

func (c *Client) ChangeDisk(ctx context.Context, r admin.DiskRequest, progress func(admin.DiskProgress)) (admin.DiskResult, error) {
	result, err := requestLines[v1.DiskProgress, v1.DiskResult](ctx, c, "/v1/disks", diskRequestV1(r), converting(progress, diskProgressOf))
	return diskResultOf(result), err
}
