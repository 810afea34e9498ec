package backstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/rows"
)

// A store that is only read takes rows that are lost in every copy from older runs of
// the metadata, as far as that is right:
//
//   - An extent never changes, and its data is verified: an older page of extents can
//     lack some, and place some where they are no more, which are read errors.
//   - A snapshot never changes: where its row is still listed, an older one is right.
//   - Of a volume, number and identity never change. Its name and size are what they
//     were, and its map may be another one: all of it is lost. One whose row no older
//     run has is missing, and noted.
//   - A node of a map, a count or a record of an older run can be what it is not any
//     more, and nothing shows it: none is used.

// lostNode stands for the root of a map that is not known.
const lostNode = 1 << 62

// errLostRoot is why it cannot be read.
var errLostRoot = fmt.Errorf("%w: the row of the volume is lost, and with it where its map is", meta.ErrDamaged)

// salvaged reads rows, and takes those of older runs for lost ones where that is
// right.
type salvaged struct{ meta.KV }

// Get implements meta.Reader.
func (r salvaged) Get(key []byte) ([]byte, error) {
	if len(key) == 9 && key[0] == blockmap.NodePrefix && binary.BigEndian.Uint64(key[1:]) == lostNode {
		return nil, errLostRoot
	}
	value, err := r.KV.Get(key)
	if errors.Is(err, meta.ErrDamaged) && key[0] == extent.PagePrefix {
		if older, oerr := r.Older(key); oerr == nil {
			return older.Value, nil
		}
	}
	return value, err
}

// reader returns what maps and extents are read from.
func (rc *recovery) reader() meta.Reader {
	if rc.opts.ReadOnly {
		return salvaged{rc.parts.kv}
	}
	return rc.parts.kv
}

// salvageSnapshots takes the rows of snapshots that are lost from older runs.
func (rc *recovery) salvageSnapshots() error {
	return rc.eachLost(rows.SnapshotPrefix, func(id uint64, v meta.Version) error {
		row, err := rows.DecodeSnapshot(v.Value)
		if err != nil || !v.Proved || rc.catalog.snapshots[id] != nil {
			return nil // noteSnapshots notes it
		}
		rc.catalog.snapshots[id] = newSnapshotState(&row)
		return nil
	})
}

// noteSnapshots notes each snapshot that is not shown because its row is lost. The
// journal is replayed.
func (rc *recovery) noteSnapshots() error {
	return rc.eachLost(rows.SnapshotPrefix, func(id uint64, v meta.Version) error {
		if rc.catalog.snapshots[id] != nil || rc.catalog.changedSnaps[id] { // the journal deletes it
			return nil
		}
		held := "what it held is not known"
		if row, err := rows.DecodeSnapshot(v.Value); v.Value != nil && err == nil {
			held = fmt.Sprintf("as of checkpoint %d it held %d bytes", v.Checkpoint, newSnapshotState(&row).length)
		}
		rc.damage.Note(fmt.Sprintf("snapshot %d", id), fmt.Errorf("%w: its row is lost in every copy, and with it its data: %s; a token that stands for it ends", ErrCorrupt, held))
		return nil
	})
}

// salvageVolumes makes volumes of which nothing is known but what older runs have:
// all blocks of them are read errors. Volumes whose rows are in no older run are named.
// The journal is replayed.
func (s *Store) salvageVolumes() error {
	var missing []uint64
	err := s.recovery.eachLost(rows.VolumePrefix, func(number uint64, v meta.Version) error {
		if s.catalog.volumes[number] != nil || s.catalog.deletedVols[number] {
			return nil
		}
		s.recovery.guessed = true
		row, err := rows.DecodeVolume(v.Value)
		row.Root.Node = lostNode
		made := s.volumeOf(&row)
		if err != nil || s.catalog.byName[made.key()] != nil { // one that was made later has the name
			missing = append(missing, number)
			return nil
		}
		s.catalog.volumes[number], s.catalog.byName[made.key()] = made, made
		renamed := ""
		if key, ok := s.recovery.unused.Named(number); ok && key != made.key() {
			renamed = fmt.Sprintf("; a record of the journal names it %v", key)
		}
		s.damage.Note(made.String(), fmt.Errorf("%w: its row is lost in every copy: name and size are those of checkpoint %d, and none of its data can be proved right%s", ErrCorrupt, v.Checkpoint, renamed))
		return nil
	})
	for _, number := range missing {
		s.recovery.noteMissing(number)
	}
	return err
}

// noteMissing notes a volume or file that is not shown, under the name that the
// journal gives it, or under its number where that is not known or another one has the
// name.
func (rc *recovery) noteMissing(number uint64) {
	what := fmt.Sprintf("volume or file number %d", number)
	if key, ok := rc.unused.Named(number); ok && rc.catalog.byName[key] == nil {
		what = key.String()
	}
	rc.damage.Note(what, fmt.Errorf("%w: the row of number %d is lost in every copy, and with it name, size and data: it is missing", ErrCorrupt, number))
}

// eachLost calls fn with the older version of each row of a table that cannot be read;
// v.Value is nil where there is none.
func (rc *recovery) eachLost(prefix byte, fn func(number uint64, v meta.Version) error) error {
	return rc.parts.kv.Keys([]byte{prefix}, func(key []byte) error {
		if len(key) != 9 {
			return nil
		}
		if _, err := rc.parts.kv.Get(key); !errors.Is(err, meta.ErrDamaged) {
			return nil
		}
		older, err := rc.parts.kv.Older(key)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		return fn(binary.BigEndian.Uint64(key[1:]), older)
	})
}
