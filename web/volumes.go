package web

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"odx/admin"
	"odx/conf"
)

const (
	// maxDisks bounds the virtual disks that are opened for one view.
	maxDisks = 50
	// maxDepth is how far rows are indented at most.
	maxDepth = 6
)

// node is a volume, or a virtual disk, in its tree.
type node struct {
	Name string
	// Kind is volume, snapshot, clone, virtual disk or file.
	Kind    string
	Size    int64
	Mapped  int64
	Created time.Time
	LUNs    []string
	// Exclusive are the bytes that nothing else refers to; -1 where that is not known.
	Exclusive int64
	// Depth is how many nodes are above it, Parent the one directly above.
	Depth  int
	Parent string
	// Problem is why a virtual disk is not readable.
	Problem string
}

// tree is what the view of volumes shows.
type tree struct {
	Volumes, Disks         []node
	MoreVolumes, MoreDisks int
	// Uncounted is why bytes are missing; "" if they are not.
	Uncounted string
	// Operate and Administer: the user may act so.
	Operate, Administer bool
}

// Names returns the names of the volumes, for forms.
func (t tree) Names() (names []string) {
	for i := range t.Volumes {
		names = append(names, t.Volumes[i].Name)
	}
	return names
}

// Sources returns the names of the snapshots and clones, which have an origin to revert.
func (t tree) Sources() (names []string) {
	for i := range t.Volumes {
		if t.Volumes[i].Kind != "volume" {
			names = append(names, t.Volumes[i].Name)
		}
	}
	return names
}

func readVolumes(ctx context.Context, p *page, u *user) (any, error) {
	t := tree{Operate: u.May(conf.RoleOperate), Administer: u.May(conf.RoleAdminister)}
	volumes, err := p.Administrator.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	store, err := p.measured.store.get(ctx)
	if err != nil {
		t.Uncounted = sentence(err)
	}
	exclusive, err := p.measured.exclusive.get(ctx)
	if err != nil {
		t.Uncounted = sentence(err)
	}
	mapped := map[string]int64{}
	for _, v := range store.Stats.Volumes {
		mapped[v.Name] = v.MappedBytes
	}
	t.Volumes, t.MoreVolumes = head(volumeNodes(volumes, mapped, exclusive))
	if t.Disks, t.MoreDisks, err = p.diskNodes(ctx, &store, exclusive); err != nil {
		return nil, err
	}
	return t, nil
}

// volumeNodes returns volumes, each followed by those that were made of it.
func volumeNodes(volumes []admin.Volume, mapped, exclusive map[string]int64) []node {
	nodes := []node{}
	for _, v := range volumes {
		n := node{Name: v.Name, Kind: kindOf(&v), Size: v.SizeBytes, Mapped: mapped[v.Name], Created: v.Created, LUNs: v.LUNs, Exclusive: -1, Parent: v.Origin}
		if bytes, ok := exclusive[v.Name]; ok {
			n.Exclusive = bytes
		}
		nodes = append(nodes, n)
	}
	return arrange(nodes)
}

func kindOf(v *admin.Volume) string {
	switch {
	case v.ReadOnly:
		return "snapshot"
	case v.Origin != "":
		return "clone"
	}
	return "volume"
}

// arrange puts each node after the one above it. Nodes whose parent is not there, or is
// below themselves, are roots.
func arrange(nodes []node) []node {
	known, below := map[string]bool{}, map[string][]node{}
	for _, n := range nodes {
		known[n.Name] = true
	}
	var roots []node
	for _, n := range nodes {
		if n.Parent == "" || !known[n.Parent] || n.Parent == n.Name {
			roots = append(roots, n)
		} else {
			below[n.Parent] = append(below[n.Parent], n)
		}
	}
	sorted, placed := make([]node, 0, len(nodes)), map[string]bool{}
	place := func(from []node) {
		for stack := reversed(from, 0); len(stack) > 0; {
			n := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if placed[n.Name] {
				continue
			}
			placed[n.Name] = true
			sorted = append(sorted, n)
			stack = append(stack, reversed(below[n.Name], n.Depth+1)...)
		}
	}
	place(roots)
	for _, n := range nodes {
		if !placed[n.Name] {
			place([]node{n})
		}
	}
	return sorted
}

// reversed returns nodes by name, the last first, at a depth.
func reversed(nodes []node, depth int) []node {
	list := slices.Clone(nodes)
	slices.SortFunc(list, func(a, b node) int { return cmp.Compare(b.Name, a.Name) })
	for i := range list {
		list[i].Depth = min(depth, maxDepth)
	}
	return list
}

// diskNodes returns the files, each followed by the differencing disks over it.
func (p *page) diskNodes(ctx context.Context, store *admin.StoreInfo, exclusive map[string]int64) (nodes []node, more int, err error) {
	files, err := p.Administrator.Files(ctx)
	if err != nil {
		return nil, 0, err
	}
	mapped := map[string]int64{}
	for _, f := range store.Stats.Files {
		mapped[f.Name] = f.MappedBytes
	}
	opened := 0
	for _, f := range files {
		n := node{Name: f.Name, Kind: "file", Size: f.SizeBytes, Mapped: mapped[f.Name], Created: f.Created, Exclusive: -1}
		if bytes, ok := exclusive[admin.FilePrefix+f.Name]; ok {
			n.Exclusive = bytes
		}
		if isDisk(f.Name) && opened < maxDisks {
			opened++
			d, err := p.Administrator.Disk(ctx, f.Name)
			switch {
			case err != nil:
				n.Kind, n.Problem = "virtual disk", sentence(err)
			case len(d.Parents) > 0:
				n.Kind, n.Size, n.Parent = d.Kind+" disk", d.SizeBytes, d.Parents[0]
			default:
				n.Kind, n.Size = d.Kind+" disk", d.SizeBytes
			}
		}
		nodes = append(nodes, n)
	}
	nodes, more = head(arrange(nodes))
	return nodes, more, nil
}

// isDisk reports whether a name is that of a virtual disk with a format.
func isDisk(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".vhd", ".vhdx", ".avhd", ".avhdx":
		return true
	}
	return false
}
