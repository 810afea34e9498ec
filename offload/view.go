package offload

import (
	"context"

	"odx/blockdev"
)

// View is a Volume whose bytes are in other volumes: a partition, a stripe, a mirror.
// The engine asks it where they are and copies from there, so that no bytes move. Unless
// the View shares (Engine.Shares), the engine takes the memory to move bytes before it
// calls Pieces and Map, which may lock.
type View interface {
	blockdev.Volume
	// Pieces calls take with the places of the bytes of ranges, in their order: all of
	// them, or the first ones, whole logical blocks, if there are too many pieces.
	// Until take returns, nothing is written through the view, and the pieces hold what
	// a read of the view returns.
	Pieces(ctx context.Context, ranges []blockdev.Range, take func([]Piece) error) error
	// Map is Object.Map. It may also stop where the view continues in another volume.
	Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error)
	// Backing returns the volumes that hold the view's bytes, which are no Views; one
	// may be listed several times.
	Backing() []blockdev.Volume
}

// Piece is a range of bytes of a volume that is no View. Without a Volume it is that
// many zeros.
type Piece struct {
	Volume         blockdev.Volume
	Offset, Length int64
}
