package backstore

import (
	"encoding/json"
	"fmt"
)

// repairedVersion is the version of repairedRecord. Records without one are of the
// first form, which lacked nothing else.
const repairedVersion = 1

// repairedRecord is what the file layout.RepairedTag has: what a repair in place found that
// was made and is not in its place yet. It is durable: a repair that was interrupted,
// by an older program too, goes on with it.
type repairedRecord struct {
	Version    int            `json:"version"`
	Volumes    int            `json:"volumes"`
	Snapshots  int            `json:"snapshots"`
	Records    int            `json:"records"`
	LostBytes  int64          `json:"lost_bytes"`
	DataRead   bool           `json:"data_read,omitempty"` // missing in older records
	Lost       []storedLost   `json:"lost"`
	More       int            `json:"more_lost,omitempty"`
	Unused     []storedUnused `json:"unused"`
	MoreUnused int            `json:"more_unused,omitempty"`
}

type storedLost struct {
	What   string `json:"what"`
	Offset int64  `json:"offset,omitempty"`
	Length int64  `json:"length,omitempty"`
	Reason string `json:"reason"`
}

type storedUnused struct {
	FirstLSN uint64       `json:"first_lsn"`
	LastLSN  uint64       `json:"last_lsn"`
	Records  int          `json:"records"`
	Change   storedChange `json:"change"`
}

type storedChange struct {
	Kind   string `json:"kind"`
	What   string `json:"what"`
	Offset int64  `json:"offset,omitempty"`
	Length int64  `json:"length,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// encode returns the record of r.
func (r *Repaired) encode() ([]byte, error) {
	rec := repairedRecord{
		Version: repairedVersion, Volumes: r.Volumes, Snapshots: r.Snapshots, Records: r.Records, LostBytes: r.LostBytes, DataRead: r.DataRead,
		Lost: []storedLost{}, More: r.More, Unused: []storedUnused{}, MoreUnused: r.MoreUnused,
	}
	for _, l := range r.Lost {
		rec.Lost = append(rec.Lost, storedLost(l))
	}
	for _, u := range r.Unused {
		rec.Unused = append(rec.Unused, storedUnused{u.FirstLSN, u.LastLSN, u.Records, storedChange(u.Change)})
	}
	return json.Marshal(rec)
}

// decodeRepaired reads a record.
func decodeRepaired(text []byte) (r Repaired, err error) {
	var rec repairedRecord
	if err := json.Unmarshal(text, &rec); err != nil {
		return r, err
	}
	if rec.Version < 0 || rec.Version > repairedVersion {
		return r, fmt.Errorf("version %d of its record, this program knows up to %d", rec.Version, repairedVersion)
	}
	r = Repaired{
		Volumes: rec.Volumes, Snapshots: rec.Snapshots, Records: rec.Records, LostBytes: rec.LostBytes, DataRead: rec.DataRead,
		Lost: []Lost{}, More: rec.More, Unused: []UnusedChange{}, MoreUnused: rec.MoreUnused,
	}
	for _, l := range rec.Lost {
		r.Lost = append(r.Lost, Lost(l))
	}
	for _, u := range rec.Unused {
		r.Unused = append(r.Unused, UnusedChange{FirstLSN: u.FirstLSN, LastLSN: u.LastLSN, Records: u.Records, Change: Change(u.Change)})
	}
	return r, nil
}
