package api

import (
	"maps"

	v1 "odx/api/v1"
	"odx/backstore"
)

// RepairedV1 returns the JSON of the result of a repair.
func RepairedV1(r backstore.Repaired) v1.Repaired {
	return v1.Repaired{
		Volumes: r.Volumes, Snapshots: r.Snapshots, Records: r.Records, LostBytes: r.LostBytes, DataRead: r.DataRead,
		Lost: each(func(l backstore.Lost) v1.Lost { return v1.Lost(l) })(r.Lost), More: r.More,
		Unused: each(unusedV1)(r.Unused), MoreUnused: r.MoreUnused,
	}
}

func unusedV1(u backstore.UnusedChange) v1.UnusedChange {
	return v1.UnusedChange{FirstLSN: u.FirstLSN, LastLSN: u.LastLSN, Records: u.Records, Change: v1.Change(u.Change)}
}

// UpgradedV1 returns the JSON of the result of an upgrade.
func UpgradedV1(u backstore.Upgraded) v1.Upgraded { return v1.Upgraded(u) }

// DumpItemV1 returns the JSON of a piece of a store. Its value is described by maps,
// but for what a record changes.
func DumpItemV1(i backstore.DumpItem) v1.DumpItem {
	if described, ok := i.Value.(map[string]any); ok {
		if changes, ok := described["changes"].([]backstore.Change); ok {
			described = maps.Clone(described)
			described["changes"] = each(func(c backstore.Change) v1.Change { return v1.Change(c) })(changes)
			i.Value = described
		}
	}
	return v1.DumpItem(i)
}
