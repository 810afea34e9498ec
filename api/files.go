package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"odx/backstore"
	"odx/blockdev"
	"odx/target"
	"odx/vhd"
)

// Filer keeps the files of a store. A file is copied in no time, however large
// it is, because the copy shares its data.
type Filer interface {
	// Files lists all files, by name.
	Files(ctx context.Context) ([]File, error)
	// CreateFile makes a file of size bytes that reads as zeros.
	CreateFile(ctx context.Context, name string, size int64) (File, error)
	// CopyFile makes a file that equals a volume, or a file whose name follows
	// FilePrefix, as it is now.
	CopyFile(ctx context.Context, from, name string) (File, error)
	// ResizeFile sets the size of a file. What is beyond it is gone.
	ResizeFile(ctx context.Context, name string, size int64) (File, error)
	// RenameFile gives a file another name, in place of the file that has it.
	RenameFile(ctx context.Context, name, to string) (File, error)
	DeleteFile(ctx context.Context, name string) error
	// StartFile makes a hidden file, under a random name, that is to become another
	// one when it is whole. Who does not finish it deletes it; after an hour without
	// use, and when the store is opened again, it is gone.
	StartFile(ctx context.Context, r FileStart) (File, error)
	// FinishFile gives it its name, in one step.
	FinishFile(ctx context.Context, r FileFinish) (File, error)
}

// FileStart asks for a file that is not whole yet.
type FileStart struct {
	// Name is what the file is to be called, which says its format.
	Name string `json:"-"`
	// SizeBytes is its length; it reads as zeros.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	// From is a volume, or FilePrefix and a file, that it is to equal as that is now.
	From string `json:"from,omitempty"`
}

// FileFinish gives a file its name.
type FileFinish struct {
	Name string `json:"-"`
	// Scratch is the name that StartFile gave.
	Scratch string `json:"scratch"`
	// Overwrite allows that a file has the name; it is replaced.
	Overwrite bool `json:"overwrite,omitempty"`
}

// File describes a file of the store.
type File = target.File

// FilePrefix begins the name of a file where a volume could stand, too.
const FilePrefix = target.FilePrefix

func (l *Local) Files(context.Context) ([]File, error) { return l.service.Files(), nil }

func (l *Local) CreateFile(ctx context.Context, name string, size int64) (File, error) {
	return l.service.CreateFile(ctx, name, size)
}

func (l *Local) CopyFile(ctx context.Context, from, name string) (File, error) {
	return l.service.CopyFile(ctx, from, name)
}

func (l *Local) ResizeFile(ctx context.Context, name string, size int64) (File, error) {
	return l.service.ResizeFile(ctx, name, size)
}

func (l *Local) RenameFile(ctx context.Context, name, to string) (File, error) {
	return l.service.RenameFile(ctx, name, to)
}

func (l *Local) DeleteFile(ctx context.Context, name string) error {
	return l.service.DeleteFile(ctx, name)
}

func (l *Local) StartFile(ctx context.Context, r FileStart) (File, error) {
	if r.From != "" && r.SizeBytes != 0 {
		return File{}, fmt.Errorf("%w: from and size_bytes together", blockdev.ErrInvalid)
	}
	return l.service.StartFile(ctx, r.Name, r.From, r.SizeBytes)
}

func (l *Local) FinishFile(ctx context.Context, r FileFinish) (File, error) {
	return l.service.FinishFile(ctx, vhd.Naming{Scratch: r.Scratch, Name: r.Name, Overwrite: r.Overwrite})
}

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
		p := FileStart{Name: c.request.PathValue("name")}
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		return c.admin.StartFile(c.ctx, p)
	}},
	{http.MethodPost, "/v1/files/{name}/finish", "Give a file that is whole its name.", http.StatusOK, false, func(c *call) (any, error) {
		p := FileFinish{Name: c.request.PathValue("name")}
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

func (c *Client) Files(ctx context.Context) ([]File, error) {
	return ask[[]File](ctx, c, http.MethodGet, "/v1/files", nil)
}

func (c *Client) CreateFile(ctx context.Context, name string, size int64) (File, error) {
	return ask[File](ctx, c, http.MethodPost, "/v1/files", fileParameters{Name: name, SizeBytes: size})
}

func (c *Client) CopyFile(ctx context.Context, from, name string) (File, error) {
	return ask[File](ctx, c, http.MethodPost, "/v1/files", fileParameters{Name: name, From: from})
}

func (c *Client) ResizeFile(ctx context.Context, name string, size int64) (File, error) {
	return askFile(ctx, c, http.MethodPatch, name, "", resizeParameters{size})
}

func (c *Client) RenameFile(ctx context.Context, name, to string) (File, error) {
	return askFile(ctx, c, http.MethodPost, name, "/rename", copyParameters{to})
}

func (c *Client) DeleteFile(ctx context.Context, name string) error {
	_, err := askFile(ctx, c, http.MethodDelete, name, "", nil)
	return err
}

func (c *Client) StartFile(ctx context.Context, r FileStart) (File, error) {
	return askFile(ctx, c, http.MethodPost, r.Name, "/start", r)
}

func (c *Client) FinishFile(ctx context.Context, r FileFinish) (File, error) {
	return askFile(ctx, c, http.MethodPost, r.Name, "/finish", r)
}

// askFile asks for something about one file.
func askFile(ctx context.Context, c *Client, method, name, what string, parameters any) (File, error) {
	if name == "" || name[0] == '.' && !vhd.IsScratch(name) {
		// No path of a URL, and no name that a file can have.
		return File{}, fmt.Errorf("file %s: %w", name, backstore.ErrNotFound)
	}
	return ask[File](ctx, c, method, "/v1/files/"+url.PathEscape(name)+what, parameters)
}
