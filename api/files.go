package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/vhd"
)

// fileRoutes are the requests about files.
var fileRoutes = []route{
	{http.MethodGet, "/v1/files", "All files, by name.", http.StatusOK, false, func(c *call) (any, error) {
		return c.admin.Files(c.ctx)
	}},
	{http.MethodPost, "/v1/files", "Make a file of zeros, or one that equals a volume or another file now.", http.StatusCreated, false, func(c *call) (any, error) {
		var p fileParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		if p.From == "" {
			return c.admin.CreateFile(c.ctx, p.Name, p.SizeBytes)
		}
		if p.SizeBytes != 0 {
			return nil, fmt.Errorf("%w: from and size_bytes together", blockdev.ErrInvalid)
		}
		return c.admin.CopyFile(c.ctx, p.From, p.Name)
	}},
	{http.MethodPatch, "/v1/files/{name}", "Set the size of a file.", http.StatusOK, false, func(c *call) (any, error) {
		var p resizeParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.ResizeFile(c.ctx, c.request.PathValue("name"), p.SizeBytes)
	}},
	{http.MethodPost, "/v1/files/{name}/rename", "Give a file another name, in place of the file that has it.", http.StatusOK, false, func(c *call) (any, error) {
		var p copyParameters
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.RenameFile(c.ctx, c.request.PathValue("name"), p.Name)
	}},
	{http.MethodPost, "/v1/files/{name}/start", "Make a hidden file that is to become this one when it is whole.", http.StatusCreated, false, func(c *call) (any, error) {
		p := admin.FileStart{Name: c.request.PathValue("name")}
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.StartFile(c.ctx, p)
	}},
	{http.MethodPost, "/v1/files/{name}/finish", "Give a file that is whole its name.", http.StatusOK, false, func(c *call) (any, error) {
		p := admin.FileFinish{Name: c.request.PathValue("name")}
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.FinishFile(c.ctx, p)
	}},
	{http.MethodDelete, "/v1/files/{name}", "Delete a file.", http.StatusNoContent, false, func(c *call) (any, error) {
		return nil, c.admin.DeleteFile(c.ctx, c.request.PathValue("name"))
	}},
}

type fileParameters struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
	From      string `json:"from,omitempty"`
}

func (c *Client) Files(ctx context.Context) ([]admin.File, error) {
	return ask[[]admin.File](ctx, c, http.MethodGet, "/v1/files", nil)
}

func (c *Client) CreateFile(ctx context.Context, name string, size int64) (admin.File, error) {
	return ask[admin.File](ctx, c, http.MethodPost, "/v1/files", fileParameters{Name: name, SizeBytes: size})
}

func (c *Client) CopyFile(ctx context.Context, from, name string) (admin.File, error) {
	return ask[admin.File](ctx, c, http.MethodPost, "/v1/files", fileParameters{Name: name, From: from})
}

func (c *Client) ResizeFile(ctx context.Context, name string, size int64) (admin.File, error) {
	return askFile(ctx, c, http.MethodPatch, name, "", resizeParameters{size})
}

func (c *Client) RenameFile(ctx context.Context, name, to string) (admin.File, error) {
	return askFile(ctx, c, http.MethodPost, name, "/rename", copyParameters{to})
}

func (c *Client) DeleteFile(ctx context.Context, name string) error {
	_, err := askFile(ctx, c, http.MethodDelete, name, "", nil)
	return err
}

func (c *Client) StartFile(ctx context.Context, r admin.FileStart) (admin.File, error) {
	return askFile(ctx, c, http.MethodPost, r.Name, "/start", r)
}

func (c *Client) FinishFile(ctx context.Context, r admin.FileFinish) (admin.File, error) {
	return askFile(ctx, c, http.MethodPost, r.Name, "/finish", r)
}

// askFile asks for something about one file.
func askFile(ctx context.Context, c *Client, method, name, what string, parameters any) (admin.File, error) {
	if name == "" || name[0] == '.' && !vhd.IsScratch(name) {
		// No path of a URL, and no name that a file can have.
		return admin.File{}, fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return ask[admin.File](ctx, c, method, "/v1/files/"+url.PathEscape(name)+what, parameters)
}
