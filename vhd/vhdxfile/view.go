package vhdxfile

import (
	"context"
	"fmt"

	"odx/blockdev"
)

// piece is an update of metadata: data, or zeros if data is nil. Offset and length are
// multiples of 4 KiB.
type piece struct {
	offset, length int64
	data           []byte
}

func (p piece) end() int64 { return p.offset + p.length }

// view is the file as of after the replay of its log and the writing of some pieces,
// none of which are written yet.
type view struct {
	r blockdev.Reader
	// size is the length of the file in bytes, including extensions.
	size int64
	// log has the updates of the log that the file had when it was opened.
	log    []update
	pieces []piece
}

// readAt reads len(p) bytes at off.
func (v *view) readAt(ctx context.Context, p []byte, off int64) error {
	length := int64(len(p))
	if !(blockdev.Range{Offset: off, Length: length}).In(v.size) {
		return bad("range of %d bytes at %d exceeds the file of %d bytes", length, off, v.size)
	}
	there := max(0, min(length, v.r.Size()-off))
	if there > 0 {
		if err := v.r.ReadAt(ctx, p[:there], off); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", there, off, err)
		}
	}
	clear(p[there:])
	for _, u := range during(v.log, off, length) {
		if err := u.read(ctx, v.r, p, off); err != nil {
			return err
		}
	}
	for _, piece := range v.pieces {
		from, to := max(off, piece.offset), min(off+length, piece.end())
		switch {
		case from >= to:
		case piece.data == nil:
			clear(p[from-off : to-off])
		default:
			copy(p[from-off:to-off], piece.data[from-piece.offset:])
		}
	}
	return nil
}
