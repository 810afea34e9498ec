package offload

import (
	"context"

	"odx/blockdev"
)

// View is a Volume whose bytes are in other volumes: a partition, a stripe, a
// mirror. The engine copies through it without moving bytes by asking where they
// are. The volumes at the bottom are its leaves.
type View interface {
	blockdev.Volume
	// Pieces calls take with where the bytes of ranges are, in their order: all of
	// them, or the first ones, whole logical blocks, where more pieces would be too
	// many. Until take returns nothing is written through the view, and what a read
	// of it would give is in the leaves.
	Pieces(ctx context.Context, ranges []blockdev.Range, take func([]Piece) error) error
	// Map is AddressSpace.Map. It ends early where the view is split, too.
	Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error)
	// Leaves returns the volumes at the bottom, each once or more often.
	Leaves() []blockdev.Volume
}

// Piece is a range of bytes of a volume that is no View. Without a Volume it is that
// many zeros.
type Piece struct {
	Volume         blockdev.Volume
	Offset, Length int64
}
