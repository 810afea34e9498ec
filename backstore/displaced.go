package backstore

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"odx/backstore/extent"
	"odx/backstore/record"
	"odx/backstore/segment"
)

// maxDisplaced bounds the data in bytes that a replay keeps in memory because it
// cannot be written to where it belongs.
const maxDisplaced = 64 << 20

// displaced is data that a record of the journal carries and whose segment cannot
// be written to: its header is damaged, it is of another store, or may not be
// opened. It gets another place when the replay has ended; until then it is not
// known which numbers of segments are free.
type displaced struct {
	id   extent.ID
	addr segment.Addr // where it belongs
	data []byte
}

// restoreInline writes the data that the record carries to where it belongs.
func (rc *recovery) restoreInline(r *record.Write) error {
	err := rc.parts.segments.WriteAt(r.Fresh[0].Addr, r.Inline)
	if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return err
	}
	if rc.displacedBytes += len(r.Inline); rc.displacedBytes > maxDisplaced {
		return err
	}
	rc.damage.Note(fmt.Sprintf("segment %08x", uint32(r.Fresh[0].Addr.Segment)),
		fmt.Errorf("%w: what the journal has of it is stored elsewhere: %w", ErrCorrupt, err))
	data := r.Inline
	for i := range r.Fresh {
		n := int(r.Fresh[i].Blocks) * BlockLength
		rc.displaced = append(rc.displaced, displaced{r.First + extent.ID(i), r.Fresh[i].Addr, bytes.Clone(data[:n])})
		data = data[n:]
	}
	return nil
}

// placeDisplaced gives displaced data another place, as cleaning does: a crash
// forgets it, and the next replay does it again.
func (rc *recovery) placeDisplaced() error {
	for i := range rc.displaced {
		d := &rc.displaced[i]
		now, ok, err := rc.parts.extents.Entry(d.id)
		if err != nil || !ok || now.Addr != d.addr {
			continue // freed since, or read as damage
		}
		addr, err := rc.parts.segments.Append(d.data)
		if err != nil {
			return err
		}
		if _, err := rc.parts.extents.Move(d.id, d.addr, addr); err != nil {
			return err
		}
		d.data = nil
	}
	return nil
}

// isDisplaced reports whether the data of an extent got another place.
func (rc *recovery) isDisplaced(id extent.ID) bool {
	for i := range rc.displaced {
		if rc.displaced[i].id == id {
			return true
		}
	}
	return false
}
