package backstore

import (
	"errors"
	"fmt"

	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/rows"
)

// readState reads what the last checkpoint is.
func readState(kv meta.Reader) (rows.Checkpoint, error) {
	b, err := kv.Get([]byte(rows.CheckpointKey))
	if errors.Is(err, meta.ErrNotFound) {
		// Even that of a new store has it.
		return rows.Checkpoint{}, fmt.Errorf("%w: the store has no checkpoint: its files, in %s, are missing; restore them from a copy", ErrCorrupt, layout.CheckpointDir)
	}
	if err != nil {
		return rows.Checkpoint{}, err
	}
	return rows.DecodeCheckpoint(b)
}

func (s *Store) loadTables() error {
	err := s.scanTables(s.parts.kv,
		func(v *Volume) { s.catalog.volumes[v.number], s.catalog.byName[v.key()] = v, v },
		func(st *snapshotState) { s.catalog.snapshots[st.id] = st })
	if err == nil {
		err = s.life.tolerate("table of aliases", s.aliases.load(s.parts.kv))
	}
	if err == nil && s.opts.ReadOnly {
		err = s.recovery.salvageSnapshots()
	}
	return err
}

// scanTables calls the functions with every stored volume and snapshot.
func (s *Store) scanTables(kv meta.Reader, volume func(*Volume), snapshot func(*snapshotState)) error {
	err := kv.Scan([]byte{rows.VolumePrefix}, func(_, value []byte) error {
		row, err := rows.DecodeVolume(value)
		if err == nil {
			volume(s.volumeOf(&row))
		}
		return err
	})
	if err = s.life.tolerate("table of volumes", err); err != nil {
		return fmt.Errorf("table of volumes: %w", err)
	}
	err = kv.Scan([]byte{rows.SnapshotPrefix}, func(_, value []byte) error {
		row, err := rows.DecodeSnapshot(value)
		if err == nil {
			snapshot(newSnapshotState(&row))
		}
		return err
	})
	if err = s.life.tolerate("table of snapshots", err); err != nil {
		return fmt.Errorf("table of snapshots: %w", err)
	}
	return nil
}
