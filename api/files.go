package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/vhd"
)

// fileRoutes are the routes of files.
var fileRoutes = []route{
	{http.MethodGet, "/v1/files", "All files, by name.", http.StatusOK, lists, reads, looks, func(c *call) (any, error) {
		return listV1(FileV1)(c.admin.Files(c.ctx))
	}},
	{http.MethodPost, "/v1/files", "Make a file of zeros, or one that equals a volume or another file now.", http.StatusCreated, short, operates, changes("file create"), func(c *call) (any, error) {
		var p v1.CreateFile
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject(fileSubject(p.Name))
		if p.From == "" {
			return asV1(FileV1)(c.admin.CreateFile(c.ctx, p.Name, p.SizeBytes))
		}
		if p.SizeBytes != 0 {
			return nil, fmt.Errorf("%w: from and size_bytes together", blockdev.ErrInvalid)
		}
		c.changed.After = map[string]any{"from": p.From}
		return asV1(FileV1)(c.admin.CopyFile(c.ctx, p.From, p.Name))
	}},
	{http.MethodPatch, "/v1/files/{name}", "Set the size of a file.", http.StatusOK, short, operates, changes("file resize"), func(c *call) (any, error) {
		var p v1.Resize
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(FileV1)(c.admin.ResizeFile(c.ctx, c.fileAsItWas(), p.SizeBytes))
	}},
	{http.MethodPost, "/v1/files/{name}/rename", "Give a file another name, in place of the file that has it.", http.StatusOK, short, operates, changes("file rename"), func(c *call) (any, error) {
		var p v1.NewName
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(FileV1)(c.admin.RenameFile(c.ctx, c.fileAsItWas(p.Name), p.Name))
	}},
	{http.MethodPost, "/v1/files/{name}/start", "Make a hidden file that is to become this one when it is whole.", http.StatusCreated, short, operates, changes("file start"), func(c *call) (any, error) {
		var p v1.StartFile
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(FileV1)(c.admin.StartFile(c.ctx, fileStartOf(p, c.file())))
	}},
	{http.MethodPost, "/v1/files/{name}/finish", "Give a file that is whole its name.", http.StatusOK, short, operates, changes("file finish"), func(c *call) (any, error) {
		var p v1.FinishFile
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return asV1(FileV1)(c.admin.FinishFile(c.ctx, fileFinishOf(p, c.fileAsItWas())))
	}},
	{http.MethodDelete, "/v1/files/{name}", "Delete a file that is not the parent of virtual disks.", http.StatusNoContent, short, administers, changes("file delete"), func(c *call) (any, error) {
		force, err := c.flag("force")
		if err != nil {
			return nil, err
		}
		if force {
			return nil, c.admin.DeleteParent(c.ctx, c.fileAsItWas())
		}
		return nil, c.admin.DeleteFile(c.ctx, c.fileAsItWas())
	}},
}

func (c *Client) Files(ctx context.Context) ([]admin.File, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/files", nil, each(fileOf))
}

func (c *Client) CreateFile(ctx context.Context, name string, size int64) (admin.File, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/files", v1.CreateFile{Name: name, SizeBytes: size}, fileOf)
}

func (c *Client) CopyFile(ctx context.Context, from, name string) (admin.File, error) {
	return requestAs(ctx, c, http.MethodPost, "/v1/files", v1.CreateFile{Name: name, From: from}, fileOf)
}

func (c *Client) ResizeFile(ctx context.Context, name string, size int64) (admin.File, error) {
	return requestFile(ctx, c, http.MethodPatch, name, "", v1.Resize{SizeBytes: size})
}

func (c *Client) RenameFile(ctx context.Context, name, to string) (admin.File, error) {
	return requestFile(ctx, c, http.MethodPost, name, "/rename", v1.NewName{Name: to})
}

func (c *Client) DeleteFile(ctx context.Context, name string) error {
	_, err := requestFile(ctx, c, http.MethodDelete, name, "", nil)
	return err
}

func (c *Client) DeleteParent(ctx context.Context, name string) error {
	_, err := requestFile(ctx, c, http.MethodDelete, name, "?force=true", nil)
	return err
}

func (c *Client) StartFile(ctx context.Context, r admin.FileStart) (admin.File, error) {
	// Before the name becomes a part of a path.
	if err := admin.CheckFileName(r.Name); err != nil {
		return admin.File{}, err
	}
	return requestFile(ctx, c, http.MethodPost, r.Name, "/start", fileStartV1(r))
}

func (c *Client) FinishFile(ctx context.Context, r admin.FileFinish) (admin.File, error) {
	return requestFile(ctx, c, http.MethodPost, r.Name, "/finish", fileFinishV1(r))
}

// requestFile sends a request about a file.
func requestFile(ctx context.Context, c *Client, method, name, what string, parameters any) (admin.File, error) {
	if name == "" || name[0] == '.' && !vhd.IsScratch(name) {
		// No file has such a name, and it is no path.
		return admin.File{}, fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return requestAs(ctx, c, method, "/v1/files/"+url.PathEscape(name)+what, parameters, fileOf)
}
