package copymgr

import (
	"context"
	"errors"
	"fmt"

	"odx/target/scsi"
)

// reached is a logical unit that an EXTENDED COPY reads or writes, and the I_T nexus
// with whose rights it does. The rights are determined when the command arrives, so
// that the loss of the nexus does not end a copy in the background.
type reached struct {
	unit      *logicalUnit // nil for a ROD
	rod       *rod         // nil for a logical unit
	nexus     *scsi.Nexus
	cscd      int   // offset of the CSCD descriptor in the parameter list; 0: none
	pad       bool  // PAD of the CSCD descriptor
	protected error // why the initiator may not write, or nil
}

// resolution is the result of the search for a CSCD id.
type resolution struct {
	reached *reached
	failed  *segmentError
	// refused is the reason why the token of a ROD cannot be used.
	refused error
}

var (
	errNoCSCD      = errors.New("no CSCD descriptor with this id")
	errUnreachable = errors.New("no logical unit with this designator is addressable by the initiator")
	errRule        = errors.New("forbidden by a copy rule of the configuration")
)

// resolve finds the logical units of all segments.
func (x *extendedCopy) resolve(ctx context.Context) {
	x.resolved = make(map[uint16]resolution)
	for i := range x.list.segments {
		s := &x.list.segments[i]
		for _, id := range [...]uint16{s.source, s.destination} {
			if _, ok := x.resolved[id]; !ok {
				x.resolved[id] = x.resolution(ctx, id)
			}
		}
	}
}

// resolution resolves a CSCD id.
func (x *extendedCopy) resolution(ctx context.Context, id uint16) resolution {
	if i := int(id) - x.list.firstCSCD; i >= 0 && i < len(x.list.cscds) && x.list.cscds[i].rod != nil {
		return x.resolveROD(ctx, id, &x.list.cscds[i])
	}
	r, failed := x.search(id)
	if r != nil {
		r.protected = r.nexus.WriteProtected(r.unit.lu)
	}
	return resolution{reached: r, failed: failed}
}

func (x *extendedCopy) resolveROD(ctx context.Context, id uint16, c *cscd) resolution {
	r, err := x.newROD(ctx, c)
	if err != nil {
		return resolution{refused: err}
	}
	if c.blockLength != 0 && int64(c.blockLength) != r.block {
		return resolution{failed: &segmentError{asc: ascCopyTargetNotReachable, cscd: c.at,
			err: fmt.Errorf("CSCD %d: block length %d, token has %d", id, c.blockLength, r.block)}}
	}
	return resolution{reached: &reached{rod: r, nexus: x.nexus, cscd: c.at, pad: c.pad}}
}

// reach returns the logical unit of the CSCD id in a field of a segment.
func (x *extendedCopy) reach(id uint16, field int) (*reached, *segmentError) {
	r := x.resolved[id]
	if r.failed != nil {
		failed := *r.failed
		failed.field = field
		return nil, &failed
	}
	return r.reached, nil
}

// search finds the logical unit of a CSCD id. It finds only logical units that the
// initiator can address: through the nexus of the command or, if the logical unit
// belongs to another target, through another session of the same initiator.
func (x *extendedCopy) search(id uint16) (*reached, *segmentError) {
	if id == cscdThisLU {
		return &reached{unit: x.unit, nexus: x.nexus}, nil
	}
	i := int(id) - x.list.firstCSCD
	if i < 0 || i >= len(x.list.cscds) {
		return nil, &segmentError{asc: ascUnreachableCopyTarget, err: fmt.Errorf("%w: %d", errNoCSCD, id)}
	}
	c := &x.list.cscds[i]
	if c.deviceType != 0 {
		return nil, &segmentError{asc: ascIncorrectCopyTargetType, cscd: c.at, err: fmt.Errorf("CSCD %d: peripheral device type %02Xh", id, c.deviceType)}
	}
	for _, u := range x.unit.manager.installed() {
		if !hasDesignator(u.lu, c.designator) {
			continue
		}
		nexus := u.lu.NexusFor(x.nexus)
		if nexus == nil {
			break
		}
		if c.blockLength != 0 && c.blockLength != u.lu.LogicalBlockLength() {
			return nil, &segmentError{asc: ascCopyTargetNotReachable, cscd: c.at,
				err: fmt.Errorf("CSCD %d: block length %d, volume %s has %d", id, c.blockLength, u.name(), u.lu.LogicalBlockLength())}
		}
		return &reached{unit: u, nexus: nexus, cscd: c.at, pad: c.pad}, nil
	}
	return nil, &segmentError{asc: ascUnreachableCopyTarget, cscd: c.at, err: fmt.Errorf("CSCD %d: %w: % x", id, errUnreachable, c.designator.ID)}
}

// hasDesignator reports whether d designates lu by one of the designators in VPD page
// 83h.
func hasDesignator(lu *scsi.LogicalUnit, d scsi.Designator) bool {
	for _, own := range lu.Designators() {
		if d.Equal(own) {
			return true
		}
	}
	return false
}

// blockLength returns the block length of the logical unit or ROD in bytes.
func (r *reached) blockLength() int64 {
	if r.rod != nil {
		return r.rod.block
	}
	return int64(r.unit.lu.LogicalBlockLength())
}

// blocks returns the capacity in logical blocks.
func (r *reached) blocks() uint64 {
	if r.rod != nil {
		return uint64(r.rod.length / r.rod.block)
	}
	return r.unit.lu.Blocks()
}

// medium returns the volume of the logical unit, or the source volume of the ROD.
func (r *reached) medium() string {
	if r.rod != nil {
		return r.rod.volume
	}
	return r.unit.name()
}

// readAt reads at any byte offset.
func (r *reached) readAt(ctx context.Context, p []byte, off int64) error {
	if r.rod != nil {
		_, err := r.rod.reader.ReadAt(ctx, p, off)
		return err
	}
	return r.unit.bytes().ReadAt(ctx, p, off)
}

// readable and writable return why the initiator may currently not do so: the error
// with which reading or writing the logical unit itself would end.
func (r *reached) readable() error {
	if r.rod != nil {
		return nil
	}
	if err := r.unit.lu.Reserved(r.nexus, scsi.AccessRead); err != nil {
		return err
	}
	return r.unit.lu.Ready()
}

func (r *reached) writable() error {
	if err := r.unit.lu.Reserved(r.nexus, scsi.AccessWrite); err != nil {
		return err
	}
	if err := r.unit.lu.Ready(); err != nil {
		return err
	}
	if r.protected != nil {
		return r.protected
	}
	return r.unit.lu.WriteProtected() // it can have changed since
}
