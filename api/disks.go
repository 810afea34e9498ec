package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"odx/backstore"
	"odx/vhd"
	"odx/vhd/disk"
)

// Disker works on the virtual disks in the files of a store, without moving payload
// that is in the store.
type Disker interface {
	// Disk describes the virtual disk in a file.
	Disk(ctx context.Context, name string) (Disk, error)
	// CheckDisk says what is wrong with it.
	CheckDisk(ctx context.Context, name string) (DiskCheck, error)
	// ChangeDisk runs an operation. progress, which may be nil, is called now and
	// then.
	ChangeDisk(ctx context.Context, r DiskRequest, progress func(DiskProgress)) (DiskResult, error)
}

// What package vhd says about virtual disks.
type (
	Disk         = vhd.Description
	DiskRequest  = vhd.Request
	DiskProgress = vhd.Progress
	DiskResult   = vhd.Result
)

// DiskCheck is what the check of a virtual disk found.
type DiskCheck struct {
	// Sound: nothing is wrong that endangers data.
	Sound    bool          `json:"sound"`
	Findings []DiskFinding `json:"findings"`
}

// DiskFinding is something that is wrong with a virtual disk.
type DiskFinding struct {
	// Harmless: no data is in danger.
	Harmless bool   `json:"harmless"`
	Text     string `json:"text"`
}

func (l *Local) Disk(ctx context.Context, name string) (Disk, error) {
	m, err := l.service.Disks(ctx)
	if err != nil {
		return Disk{}, err
	}
	return m.Describe(ctx, name)
}

func (l *Local) CheckDisk(ctx context.Context, name string) (DiskCheck, error) {
	m, err := l.service.Disks(ctx)
	if err != nil {
		return DiskCheck{}, err
	}
	findings, err := m.Check(ctx, name)
	if err != nil {
		return DiskCheck{}, err
	}
	return NewDiskCheck(findings), nil
}

// NewDiskCheck sums findings up.
func NewDiskCheck(findings []disk.Finding) DiskCheck {
	check := DiskCheck{Sound: true, Findings: []DiskFinding{}}
	for _, f := range findings {
		check.Findings = append(check.Findings, DiskFinding{f.Harmless, f.Text})
		check.Sound = check.Sound && f.Harmless
	}
	return check
}

func (l *Local) ChangeDisk(ctx context.Context, r DiskRequest, progress func(DiskProgress)) (DiskResult, error) {
	return l.service.ChangeDisk(ctx, r, progress)
}

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
	var r DiskRequest
	if err := c.decode(&r); err != nil {
		return nil, err
	}
	var told time.Time
	return c.admin.ChangeDisk(c.ctx, r, func(p DiskProgress) {
		if now := time.Now(); now.Sub(told) >= progressPeriod {
			told = now
			c.tell(p)
		}
	})
}

func (c *Client) Disk(ctx context.Context, name string) (Disk, error) {
	path, err := diskPath(name, "")
	if err != nil {
		return Disk{}, err
	}
	return ask[Disk](ctx, c, http.MethodGet, path, nil)
}

func (c *Client) CheckDisk(ctx context.Context, name string) (DiskCheck, error) {
	path, err := diskPath(name, "/check")
	if err != nil {
		return DiskCheck{}, err
	}
	return ask[DiskCheck](ctx, c, http.MethodPost, path, nil)
}

// diskPath is the path of something about the virtual disk in a file.
func diskPath(name, what string) (string, error) {
	if name == "" || strings.HasPrefix(name, ".") {
		// No path of a URL, and no name that a file can have.
		return "", fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return "/v1/files/" + url.PathEscape(name) + "/disk" + what, nil
}

func (c *Client) ChangeDisk(ctx context.Context, r DiskRequest, progress func(DiskProgress)) (DiskResult, error) {
	return askLines[DiskProgress, DiskResult](ctx, c, "/v1/disks", r, progress)
}
