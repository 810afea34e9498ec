package layout

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"odx/backstore/journal"
	"odx/backstore/meta"
	"odx/backstore/segment"
)

// LostError: no copy of the superblock is that of the store.
type LostError struct{ err error }

func (e *LostError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong with the copies.
func (e *LostError) Unwrap() error { return e.err }

// Rebuild returns a superblock from the headers of the other files, with a new key of
// the fingerprints. Its dedup unit is 0: no header has it. It returns lost where they do
// not agree.
func (d Directory) Rebuild(lost *LostError) (sb Superblock, err error) {
	if errors.Is(lost, fs.ErrPermission) {
		return sb, lost // it is there
	}
	checkpoints := filepath.Join(d.Path, CheckpointDir)
	rows, err := meta.StoreIDs(d.FS, checkpoints)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sb, errors.Join(lost, err)
	}
	if len(rows) == 0 {
		return sb, fmt.Errorf("%w; without metadata in %s nothing says what its data is: restore both from a copy", lost, checkpoints)
	}
	votes, err := headerVotes(
		func() (map[[16]byte]int, error) { return rows, nil },
		func() (map[[16]byte]int, error) { return journal.StoreIDs(d.FS, filepath.Join(d.Path, JournalDir)) },
		func() (map[[16]byte]int, error) { return segment.StoreIDs(d.FS, filepath.Join(d.Path, SegmentDir)) },
	)
	if err != nil {
		return sb, errors.Join(lost, err)
	}
	sb.ID = mostVotes(votes)
	if len(votes) > 1 || votes[sb.ID] < 2 {
		return sb, fmt.Errorf("%w; nothing else says which store this is: the headers of metadata, journal and segments do not agree", lost)
	}
	sb.Identity = sb.ID
	rand.Read(sb.FingerprintKey[:])
	return sb, nil
}
