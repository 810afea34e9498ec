package rows

import (
	"encoding/binary"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/known"
	"odx/backstore/meta"
)

// Part returns the part of Dump that a row belongs to.
func Part(prefix byte) string {
	switch prefix {
	case VolumePrefix:
		return "volumes"
	case SnapshotPrefix:
		return "snapshots"
	case recordPrefix:
		return "records"
	case blockmap.NodePrefix:
		return "nodes"
	case extent.PagePrefix:
		return "extents"
	case blockmap.CountPrefix, extent.CountPrefix:
		return "counts"
	case extent.UsagePrefix:
		return "usage"
	case known.PagePrefix, known.StoresPrefix:
		return "known"
	case AliasPrefix:
		return "aliases"
	}
	return "checkpoint"
}

// KeyText shows the key of a row.
func KeyText(key []byte) string {
	switch {
	case key[0] == recordPrefix:
		return fmt.Sprintf("%q", key[1:])
	case len(key) == 9:
		return fmt.Sprintf("%c%d", key[0], binary.BigEndian.Uint64(key[1:]))
	case len(key) == 5:
		return fmt.Sprintf("%c%08x", key[0], binary.BigEndian.Uint32(key[1:]))
	}
	return string(key[:1])
}

// Describe returns what a row says, for people. unit is that of the store, in blocks.
func Describe(key, value []byte, unit int) (any, error) {
	switch key[0] {
	case VolumePrefix:
		r, err := DecodeVolume(value)
		return r.Describe(), err
	case SnapshotPrefix:
		r, err := DecodeSnapshot(value)
		return map[string]any{"id": r.ID, "deleted": r.Deleted, "node": r.Root.Node, "level": r.Root.Level, "ranges": r.Ranges}, err
	case recordPrefix:
		return fmt.Sprintf("%q", value), nil
	case AliasPrefix:
		r, err := DecodeAlias(value)
		return r.Describe(), err
	case CheckpointKey[0]:
		st, err := DecodeCheckpoint(value)
		return map[string]any{
			"first_lsn": st.FirstLSN, "next_node": st.NextNode, "next_extent": st.NextExtent, "next_segment": st.NextSegment,
			"last_volume": st.LastVolume, "last_snapshot": st.LastSnapshot, "pinned": st.Pinned, "dropped": st.Dropped,
		}, err
	}
	text, ok, err := blockmap.Describe(key, value)
	if !ok {
		text, ok, err = extent.Describe(key, value, unit)
	}
	if !ok && err == nil {
		text, ok, err = known.Describe(key, value)
	}
	if !ok && err == nil {
		err = fmt.Errorf("%w: a row of no known kind", meta.ErrDamaged)
	}
	return text, err
}

// Describe returns what the row says, for people.
func (r *Volume) Describe() map[string]any {
	return map[string]any{
		"number": r.Number, "id": fmt.Sprintf("%x", r.ID), "name": r.Name, "size": r.Size, "node": r.Root.Node, "level": r.Root.Level,
		"read_only": r.Flags&FlagReadOnly != 0, "file": r.Flags&FlagFile != 0, "origin": r.Origin, "created": r.Created,
	}
}
