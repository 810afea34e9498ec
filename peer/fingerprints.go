package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"sync"

	"odx/backstore"
	"odx/backstore/fingerprint"
	"odx/blockdev"
)

// A server finds data that it has got from elsewhere by the fingerprints that the other server
// computes, with the key of the one that asks: only that can tell what they are of. The request
// is the key, the dedup unit in blocks (4 bytes), a CRC-32C of both, and a body of ranges; the
// answer is a body with the fingerprint of each piece.

const (
	fingerprintsHead = fingerprint.Size + 4 + 4
	// maxPrinted bounds the bytes of a request for fingerprints.
	maxPrinted = maxReadBytes
	maxUnit    = 16 // blocks
)

// eachPiece calls fn with the pieces of a range that a store with a dedup unit, in bytes, makes
// extents of.
func eachPiece(r blockdev.Range, unit int64, fn func(piece blockdev.Range)) {
	for r.Length > 0 {
		n := min(r.Length, unit-r.Offset%unit)
		fn(blockdev.Range{Offset: r.Offset, Length: n})
		r.Offset, r.Length = r.Offset+n, r.Length-n
	}
}

// pieces counts them.
func pieces(ranges []blockdev.Range, unit int64) (n int) {
	for _, r := range ranges {
		n += int((r.End()+unit-1)/unit - r.Offset/unit)
	}
	return n
}

// fingerprintRequest is what a request for fingerprints has before the ranges.
func fingerprintRequest(key [fingerprint.Size]byte, unit int) []byte {
	p := append(make([]byte, 0, fingerprintsHead), key[:]...)
	p = binary.BigEndian.AppendUint32(p, uint32(unit/blockLength))
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

// parseFingerprintRequest is its inverse; unit is in bytes.
func parseFingerprintRequest(r io.Reader) (key [fingerprint.Size]byte, unit int64, err error) {
	var p [fingerprintsHead]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return key, 0, fmt.Errorf("%w: key and dedup unit: %w", blockdev.ErrInvalid, err)
	}
	sum := fingerprintsHead - 4
	blocks := binary.BigEndian.Uint32(p[fingerprint.Size:])
	if crc32.Checksum(p[:sum], castagnoli) != binary.BigEndian.Uint32(p[sum:]) || blocks == 0 || blocks > maxUnit || blocks&(blocks-1) != 0 {
		return key, 0, fmt.Errorf("%w: key and dedup unit of %d blocks", blockdev.ErrInvalid, blocks)
	}
	return [fingerprint.Size]byte(p[:]), int64(blocks) * blockLength, nil
}

// serveFingerprints reads data for as long as it takes to hash it; nothing of the key stays.
func (k *Keeper) serveFingerprints(w http.ResponseWriter, r *http.Request, h *held) error {
	secret, unit, err := parseFingerprintRequest(r.Body)
	if err != nil {
		return err
	}
	ranges, total, err := parseRanges(r.Body, h.data.Length(), maxPrinted)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if k.pace != nil { // it is reading, as far as the disk is concerned
		if err := k.pace(ctx, h.peer, total); err != nil {
			return fmt.Errorf("%w: %w", blockdev.ErrBusy, err)
		}
	}
	if err := k.memory.Take(ctx, h.peer, maxContent); err != nil {
		return err
	}
	defer k.memory.Release(h.peer, maxContent)
	buf := buffers.Get().(*[maxContent]byte)
	defer buffers.Put(buf)
	out := newFrameWriter(w, bodyBytes)
	key := fingerprint.New(secret)
	for _, x := range ranges {
		// Parts end at multiples of the unit, since its multiples are those of the buffer, too.
		eachPiece(x, maxContent, func(part blockdev.Range) {
			if err != nil {
				return
			}
			if err = h.data.ReadAt(ctx, buf[:part.Length], part.Offset); err == nil {
				err = out.content(printsOf(key, buf[:part.Length], part, unit))
			}
		})
	}
	_ = out.end(err) // fails only if the peer has left
	return nil
}

// printsOf returns the fingerprints of the pieces of a part with the bytes p, laid end to end.
func printsOf(key *fingerprint.Key, p []byte, part blockdev.Range, unit int64) []byte {
	sums := make([][fingerprint.Size]byte, pieces([]blockdev.Range{part}, unit))
	batch, i := key.Batch(), 0
	eachPiece(part, unit, func(x blockdev.Range) {
		batch.Add(&sums[i], p[:x.Length])
		p, i = p[x.Length:], i+1
	})
	batch.Flush()
	text := make([]byte, 0, len(sums)*fingerprint.Size)
	for i := range sums {
		text = append(text, sums[i][:]...)
	}
	return text
}

// Fingerprints implements Hold.
func (h *remoteHold) Fingerprints(ctx context.Context, key [32]byte, unit int, ranges []blockdev.Range) ([]backstore.Fingerprint, error) {
	body := bytes.NewBuffer(fingerprintRequest(key, unit))
	if err := writeRanges(body, ranges); err != nil {
		return nil, err
	}
	text := make([]byte, pieces(ranges, int64(unit))*fingerprint.Size)
	err := h.peer.frames(ctx, http.MethodPost, h.path("fingerprints"), body.Bytes(), func(r io.Reader) error { return readBytes(r, text) })
	if err != nil {
		return nil, err
	}
	list := make([]backstore.Fingerprint, 0, len(text)/fingerprint.Size)
	for _, r := range ranges {
		eachPiece(r, int64(unit), func(piece blockdev.Range) {
			list = append(list, backstore.Fingerprint{Range: piece, Sum: [fingerprint.Size]byte(text)})
			text = text[fingerprint.Size:]
		})
	}
	return list, nil
}

// mapAlike maps what is missing, and here although it has not come from there, and returns what
// is still missing. Offsets are those of the hold.
func (f *fetch) mapAlike(missing []blockdev.Range) (still []blockdev.Range, err error) {
	key, unit, err := f.known.FingerprintKey()
	if errors.Is(err, backstore.ErrNoFingerprints) || len(missing) == 0 {
		return missing, nil
	}
	if err != nil {
		return nil, err
	}
	requests := requestsFor(missing)
	answers := make([][]backstore.Fingerprint, len(requests))
	ctx, stop := context.WithCancelCause(f.ctx)
	defer stop(nil)
	var running sync.WaitGroup
	free := make(chan struct{}, readers)
	for i := range requests {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			var err error
			if f.o.Pace != nil {
				err = f.o.Pace(ctx, int64(pieces(requests[i], int64(unit)))*fingerprint.Size)
			}
			if err == nil {
				answers[i], err = f.h.Fingerprints(ctx, key, unit, requests[i])
			}
			if err != nil {
				stop(err) // the first error counts
			}
		})
	}
	running.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for i, ranges := range requests {
		prints := answers[i]
		for _, r := range ranges {
			n := pieces([]blockdev.Range{r}, int64(unit))
			lacks, err := f.known.MapAlike(f.ctx, f.h.Store(), prints[:n], partOf(f.runs, r))
			if err != nil {
				return nil, err
			}
			for _, l := range lacks {
				if n := len(still); n > 0 && still[n-1].End() == l.Offset {
					still[n-1].Length += l.Length
				} else {
					still = append(still, l)
				}
			}
			prints = prints[n:]
		}
	}
	return still, nil
}

// requestsFor makes requests for fingerprints of ranges, which end at multiples of maxPrinted.
func requestsFor(ranges []blockdev.Range) (requests [][]blockdev.Range) {
	var total int64
	for _, r := range ranges {
		eachPiece(r, maxPrinted, func(part blockdev.Range) {
			n := len(requests)
			if n == 0 || total+part.Length > maxPrinted || len(requests[n-1]) == MaxRanges {
				requests, total, n = append(requests, nil), 0, n+1
			}
			requests[n-1], total = append(requests[n-1], part), total+part.Length
		})
	}
	return requests
}
