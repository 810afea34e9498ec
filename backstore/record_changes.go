package backstore

import (
	"fmt"

	"odx/backstore/rows"
)

// names are those of volumes and files, by number, as one record after the other
// leaves them.
type names struct {
	known map[uint64]*Volume
	later map[uint64]rows.Name // of records; they are newer
}

// of names a volume or a file.
func (n *names) of(number uint64) string {
	if key, ok := n.later[number]; ok {
		return key.String()
	}
	if v := n.known[number]; v != nil {
		return v.String()
	}
	return fmt.Sprintf("volume or file number %d", number)
}

// rename gives a volume or file a name, and returns the one that it had.
func (n *names) rename(number uint64, key rows.Name) (old string) {
	old = n.of(number)
	n.later[number] = key
	return old
}

// blocksOf returns a change of blocks, without its range if no volume is that long.
func blocksOf(kind, what string, first, count uint64, detail string) []Change {
	const most = MaxVolumeBytes / BlockLength
	if first > most || count > most-first {
		return []Change{{Kind: kind, What: what, Detail: "blocks that no volume has"}}
	}
	return []Change{{Kind: kind, What: what, Offset: int64(first) * BlockLength, Length: int64(count) * BlockLength, Detail: detail}}
}

func (r *writeRecord) changes(n *names) []Change {
	return blocksOf("write", n.of(r.volume), r.block, uint64(r.blocks), "")
}

func (r *clearRecord) changes(n *names) []Change {
	return blocksOf("unmap", n.of(r.volume), r.first, r.count, "")
}

func (r *mapRecord) changes(n *names) []Change {
	return blocksOf("map", n.of(r.volume), r.to, r.count, fmt.Sprintf("from snapshot %d", r.snapshot))
}

// changes returns the ranges of the volume that the snapshot has.
func (r *snapshotRecord) changes(n *names) []Change {
	c := Change{Kind: "snapshot", What: n.of(r.volume), Detail: fmt.Sprintf("snapshot %d", r.id)}
	if len(r.ranges) == 0 {
		return []Change{c}
	}
	all := make([]Change, 0, len(r.ranges))
	for _, part := range r.ranges {
		c.Offset, c.Length = part.Offset, part.Length
		all = append(all, c)
	}
	return all
}

func (r *deleteSnapshotRecord) changes(*names) []Change {
	return []Change{{Kind: "delete snapshot", What: fmt.Sprintf("snapshot %d", r.id)}}
}

func (r *recordsRecord) changes(*names) []Change {
	return []Change{{Kind: "records", What: "records"}}
}

func (r *createVolumeRecord) changes(n *names) []Change {
	n.rename(r.row.Number, r.row.Key())
	return []Change{{Kind: "create volume", What: n.of(r.row.Number)}}
}

func (r *deleteVolumeRecord) changes(n *names) []Change {
	return []Change{{Kind: "delete volume", What: n.of(r.volume)}}
}

func (r *resizeVolumeRecord) changes(n *names) []Change {
	return []Change{{Kind: "resize volume", What: n.of(r.volume), Detail: fmt.Sprintf("to %d bytes", r.size)}}
}

func (r *cloneVolumeRecord) changes(n *names) []Change {
	n.rename(r.number, rows.Name{Name: r.name, File: r.flags&rows.FlagFile != 0})
	return []Change{{Kind: "clone volume", What: n.of(r.number), Detail: "of " + n.of(r.from)}}
}

func (r *renameFileRecord) changes(n *names) []Change {
	old := n.rename(r.file, rows.Name{Name: r.to, File: true})
	return []Change{{Kind: "rename file", What: old, Detail: "to " + r.to}}
}

func (r *replaceFilesRecord) changes(n *names) []Change {
	var all []Change
	for _, number := range r.gone {
		all = append(all, Change{Kind: "replace files", What: n.of(number), Detail: "deleted"})
	}
	old := n.rename(r.file, rows.Name{Name: r.to, File: true})
	return append(all, Change{Kind: "replace files", What: old, Detail: "to " + r.to})
}
