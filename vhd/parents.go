package vhd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"odx/backstore"
	"odx/vhd/disk"
)

// checkLink returns an error if a disk is not the one over which its child was created.
func checkLink(child string, c *disk.Info, name string, p disk.Info) error {
	if p.Format != disk.Raw && !c.Parent.Is(p.ID) {
		return fmt.Errorf("%w: %s is not the disk any more that %s was made over (its identifier is %s, not %s); bring that one back, or the child's data cannot be known",
			disk.ErrFormat, name, child, p.ID, c.Parent.ID)
	}
	if c.SectorLength != p.SectorLength {
		return fmt.Errorf("%w: %s has sectors of %d bytes, and its parent %s of %d", disk.ErrFormat, child, c.SectorLength, name, p.SectorLength)
	}
	return nil
}

// parentName returns the parent of the file child: the first path of the child that is a
// file of the store. Of an absolute path, which is that of another machine, only the last
// part is used, in the child's directory.
func (m *Manager) parentName(ctx context.Context, child string, format disk.Format, p *disk.Parent) (string, error) {
	return m.findParent(ctx, child, format, p, m.folded)
}

// findParent is parentName with a list of the names in the store.
func (m *Manager) findParent(ctx context.Context, child string, format disk.Format, p *disk.Parent, names func() byFolded) (string, error) {
	if p == nil || len(p.Paths) == 0 {
		return "", fmt.Errorf("file %s: %w: it does not say where its parent is", child, disk.ErrFormat)
	}
	for _, place := range p.Paths {
		place = strings.ReplaceAll(place, `\`, "/")
		name := path.Join(path.Dir(child), place)
		if isAbsolute(place) {
			name = path.Join(path.Dir(child), withoutDrive(path.Base(place)))
		}
		if checkName(name) != nil || !canBeOver(child, format, name) || FormatOf(name) == disk.Raw && p.ID != (disk.GUID{}) {
			continue
		}
		if _, err := m.store.File(name); err == nil {
			return name, nil
		} else if !errors.Is(err, backstore.ErrNotFound) {
			return "", err
		}
		if name, err := m.choose(ctx, names()[fold(name)], p); name != "" || err != nil {
			return name, err
		}
	}
	return "", fmt.Errorf("file %s: its parent %s is not in the store; put it there: %w", child, strings.Join(p.Paths, " or "), backstore.ErrNotFound)
}

// canBeOver reports whether a differencing disk can have a file of that name as its
// parent. Some programs create a VHD over a raw disk, without an identifier of it. Nothing
// proves that such a parent is the right one: it must be in the directory of the child, so
// that a disk from elsewhere cannot show any raw disk of the store.
func canBeOver(child string, format disk.Format, parent string) bool {
	if FormatOf(parent) != disk.Raw {
		return FormatOf(parent) == format
	}
	return format == disk.VHD && path.Dir(parent) == path.Dir(child)
}

// byFolded has the names of files by their folded names.
type byFolded map[string][]string

// fold returns the same string for names that are equal on Windows: they differ in case or
// in the kind of slash.
func fold(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
}

func (m *Manager) folded() byFolded {
	names := byFolded{}
	for _, f := range m.store.Files() {
		if name := f.Name(); !strings.HasPrefix(name, ".") {
			names[fold(name)] = append(names[fold(name)], name)
		}
	}
	return names
}

// choose returns the parent among some files, by its identifier if there are several; ""
// if there is none.
func (m *Manager) choose(ctx context.Context, names []string, p *disk.Parent) (string, error) {
	for _, name := range names {
		if len(names) == 1 {
			break
		}
		f, err := m.store.File(name)
		if err != nil {
			return "", err
		}
		if info, err := probe(ctx, FormatOf(name), f); err == nil && p.Is(info.ID) {
			return name, nil
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	return names[0], nil
}

// isAbsolute reports whether a path of a parent locator, with slashes, begins at a
// root: /, //server or C:.
func isAbsolute(place string) bool {
	return strings.HasPrefix(place, "/") || len(place) > 1 && place[1] == ':'
}

// withoutDrive drops a drive before a name, as in C:base.vhdx.
func withoutDrive(name string) string {
	if len(name) > 1 && name[1] == ':' {
		return name[2:]
	}
	return name
}

// relative returns the path from the directory of the file from to the file to.
func relative(from, to string) string {
	dir, parts := path.Dir(from), ""
	for dir != "." && !strings.HasPrefix(to, dir+"/") {
		dir, parts = path.Dir(dir), parts+"../"
	}
	if dir != "." {
		to = to[len(dir)+1:]
	}
	if parts == "" {
		parts = "./"
	}
	return parts + to
}

// children returns the files of the store that are differencing disks over a file.
func (m *Manager) children(ctx context.Context, name string) ([]string, error) {
	var all []string
	names := sync.OnceValue(m.folded)
	files := m.store.Files()
	for _, f := range files {
		child := f.Name()
		format := FormatOf(child)
		if format == disk.Raw || strings.HasPrefix(child, ".") || !canBeOver(child, format, name) {
			continue
		}
		p, err := m.parentOf(ctx, f)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if p == nil || err != nil {
			continue // an unreadable file is no child
		}
		if parent, err := m.findParent(ctx, child, format, p, names); err == nil && parent == name && child != name {
			all = append(all, child)
		}
	}
	m.lineage.keep(files)
	return all, nil
}

// ErrHasChildren: a file has differencing disks over it, which cannot be read without it.
var ErrHasChildren = errors.New("is the parent of differencing disks")

// CheckNoChildren returns ErrHasChildren for a file that has children other than those
// in but. A hidden file has none.
func (m *Manager) CheckNoChildren(ctx context.Context, name string, but ...string) error {
	if strings.HasPrefix(name, ".") {
		return nil
	}
	all, err := m.children(ctx, name)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(child string) bool { return slices.Contains(but, child) })
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("file %s %w: %s; merge them, convert them to disks without parents, or delete them first", name, ErrHasChildren, someOf(all))
}

// someOf lists the first names and the number of the others.
func someOf(names []string) string {
	const most = 5
	if more := len(names) - most; more > 0 {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("%d more", more))
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
