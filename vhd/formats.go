package vhd

import (
	"context"
	"fmt"
	"path"
	"strings"

	"odx/blockdev"
	"odx/vhd/disk"
	"odx/vhd/vhdfile"
	"odx/vhd/vhdxfile"
)

// FormatOf returns the format of a file of that name.
func FormatOf(name string) disk.Format {
	switch strings.ToLower(path.Ext(name)) {
	case ".vhd", ".avhd":
		return disk.VHD
	case ".vhdx", ".avhdx":
		return disk.VHDX
	default:
		return disk.Raw
	}
}

// formats makes and opens files of all formats.
type formats struct {
	// tables bounds the memory for the tables of open files.
	tables *vhdxfile.Tables
}

// formatsWithin returns formats with a bound for tables in bytes.
func formatsWithin(tables int64) formats { return formats{vhdxfile.NewTables(tables)} }

func (o formats) create(ctx context.Context, f disk.Format, c disk.Container, s disk.Spec) (disk.Table, error) {
	switch f {
	case disk.VHD:
		return table(vhdfile.Create(ctx, c, s))
	case disk.VHDX:
		return table(o.tables.Create(ctx, c, s))
	default:
		return nil, fmt.Errorf("%w: a %s file has no structure", blockdev.ErrInvalid, f)
	}
}

func (o formats) open(ctx context.Context, f disk.Format, c disk.Container) (disk.Table, error) {
	switch f {
	case disk.VHD:
		return table(vhdfile.Open(ctx, c))
	case disk.VHDX:
		return table(o.tables.Open(ctx, c))
	default:
		return &rawTable{size: c.Size(), c: c}, nil
	}
}

func (o formats) openReadOnly(ctx context.Context, f disk.Format, r blockdev.Reader) (disk.Table, error) {
	switch f {
	case disk.VHD:
		return table(vhdfile.OpenReadOnly(ctx, r))
	case disk.VHDX:
		return table(o.tables.OpenReadOnly(ctx, r))
	default:
		return &rawTable{size: r.Size()}, nil
	}
}

// probe describes the disk in r without reading its block allocation table.
func probe(ctx context.Context, f disk.Format, r blockdev.Reader) (disk.Info, error) {
	switch f {
	case disk.VHD:
		return vhdfile.Probe(ctx, r)
	case disk.VHDX:
		return vhdxfile.Probe(ctx, r)
	default:
		return rawInfo(r.Size()), nil
	}
}

// release frees the memory of a table that is not closed: of a disk that was only read, or
// after an error.
func release(t disk.Table) {
	if held, ok := t.(interface{ Release() }); ok {
		held.Release()
	}
}

// payloadOf returns the reader of the payload of a table over r. A VHDX that was not closed
// in order, and is only read, may have payload in its log.
func payloadOf(t disk.Table, r blockdev.Reader) blockdev.Reader {
	if logged, ok := t.(interface{ Payload() blockdev.Reader }); ok {
		return logged.Payload()
	}
	return r
}

func (o formats) check(ctx context.Context, f disk.Format, r blockdev.Reader) ([]disk.Finding, error) {
	switch f {
	case disk.VHD:
		return vhdfile.Check(ctx, r)
	case disk.VHDX:
		return o.tables.Check(ctx, r)
	default:
		return nil, nil
	}
}

// table returns a nil Table, not one with a nil pointer, in case of an error.
func table[T disk.Table](t T, err error) (disk.Table, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}
