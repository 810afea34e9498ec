package copymgr

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"odx/offload"
	"odx/target/scsi/sense"
	"odx/tokens"
)

// Layout of a ROD CSCD descriptor (SPC-4 r37 6.4.5.9), as offsets from its start.
const (
	cscdTypeROD = 0xFE

	fieldRODProducer      = 4
	fieldRODCSCDType      = 8
	fieldRODLifetime      = 12
	fieldRODInactivity    = 16
	fieldRODReturnToken   = 22 // R_TOKEN, bit 0
	fieldRODDeleteToken   = 23 // DEL_TKN, bit 0
	fieldRODTokenOffset   = 24
	fieldCSCDDeviceParams = 28

	// cscdRODProducer is the CSCD id of the logical unit that created a token.
	cscdRODProducer = 0xF800

	// maxInlineTokens bounds the inline data with the tokens of ROD CSCD descriptors.
	// MAXIMUM INLINE DATA LENGTH is zero, since it bounds the data that segments write.
	maxInlineTokens = maxCSCDs * tokens.TokenLength

	// tokenBlockLength is the offset in a ROD token of the logical block length of its
	// source, in the layout of READ CAPACITY(16) (SPC-4 r37 5.17.6.5).
	tokenBlockLength = 96
)

var (
	errRODWritten  = errors.New("point-in-time ROD is read-only")
	errRODProducer = fmt.Errorf("%w: ROD producer in a separate descriptor", tokens.ErrRemote)
)

// rodCSCD is a ROD CSCD descriptor that refers to a ROD token in the inline data.
type rodCSCD struct {
	token *tokens.Token
	// remote: another descriptor identifies the token's creator.
	remote, deleteToken bool
}

// parseRODCSCD decodes a ROD CSCD descriptor that reads the bytes of a token.
// Descriptors that populate a ROD are not supported.
func parseRODCSCD(d []byte, at int, inline []byte) (cscd, error) {
	be := binary.BigEndian
	wrong := func(field int) (cscd, error) {
		return cscd{}, sense.InvalidFieldInParameterList(at+field, sense.WholeField)
	}
	switch {
	case be.Uint32(d[fieldRODCSCDType:]) != 0:
		return wrong(fieldRODCSCDType)
	case be.Uint32(d[fieldRODLifetime:]) != 0:
		return wrong(fieldRODLifetime)
	case be.Uint32(d[fieldRODInactivity:]) != 0:
		return wrong(fieldRODInactivity)
	case d[fieldRODReturnToken]&1 != 0:
		return wrong(fieldRODReturnToken)
	}
	offset := uint64(be.Uint32(d[fieldRODTokenOffset:]))
	if offset+tokens.TokenLength > uint64(len(inline)) {
		return wrong(fieldRODTokenOffset)
	}
	token := tokens.Token(inline[offset:])
	producer := be.Uint16(d[fieldRODProducer:])
	c := cscd{at: at, rod: &rodCSCD{
		token: &token, deleteToken: d[fieldRODDeleteToken]&1 != 0,
		remote: producer != cscdThisLU && producer != cscdRODProducer,
	}}
	c.parseBlockParameters(d)
	return c, nil
}

// rod presents the bytes of a ROD token as a read-only block device (SPC-4 r37
// 5.17.7.6).
type rod struct {
	handle *tokens.Handle
	// deleteToken: the token is deleted after the copy (DEL_TKN).
	deleteToken bool
	volume      string // source volume
	block       int64  // bytes
	length      int64  // bytes, whole blocks
	reader      *tokens.Reader
}

// newROD looks up the token of a descriptor. The error is a refusal of the token,
// before anything is copied.
func (x *extendedCopy) newROD(ctx context.Context, c *cscd) (*rod, error) {
	if c.rod.remote {
		return nil, errRODProducer
	}
	h, err := x.unit.manager.tokens.Resolve(c.rod.token)
	if err != nil {
		return nil, err
	}
	info, err := h.Describe(ctx) // a token of another server has its length there
	if err != nil {
		return nil, err
	}
	block := int64(binary.BigEndian.Uint32(c.rod.token[tokenBlockLength:]))
	if info.Type == tokens.RODTypeBlockDeviceZero || block == 0 {
		return nil, fmt.Errorf("%w: %v as a copy source", tokens.ErrUnsupportedType, info.Type)
	}
	return &rod{handle: h, deleteToken: c.rod.deleteToken, volume: info.Creator.Volume, block: block, length: info.Length / block * block}, nil
}

// openRODs opens the tokens of all segments, each for one use.
func (x *extendedCopy) openRODs(ctx context.Context) (closeAll func(), err error) {
	var open []*tokens.Reader
	closeAll = func() {
		for _, r := range open {
			r.Close()
		}
	}
	for _, r := range x.resolved {
		if r.reached == nil || r.reached.rod == nil {
			continue
		}
		o := tokens.ReaderOptions{Requester: tokens.Requester{Initiator: x.nexus.ID.InitiatorName}}
		if r.reached.rod.reader, err = r.reached.rod.handle.OpenReader(ctx, o); err != nil {
			return closeAll, err
		}
		open = append(open, r.reached.rod.reader)
	}
	return closeAll, nil
}

// deleteRODs deletes the tokens whose descriptors have DEL_TKN.
func (x *extendedCopy) deleteRODs(ctx context.Context) {
	for _, r := range x.resolved {
		if r.reached == nil || r.reached.rod == nil || !r.reached.rod.deleteToken {
			continue
		}
		if err := r.reached.rod.handle.DeleteFor(ctx, tokens.Requester{Initiator: x.nexus.ID.InitiatorName}); err != nil {
			x.unit.manager.log.WithError(err).Warn("token not deleted after EXTENDED COPY")
		}
	}
}

// rodFailed returns the error of a segment whose source is the token of a ROD.
func rodFailed(r *reached, err error) *segmentError {
	for _, end := range []error{tokens.ErrRevoked, tokens.ErrDeleted, tokens.ErrCancelled, tokens.ErrExpired} {
		if errors.Is(err, end) {
			return &segmentError{asc: ascCopyTargetNotReachable, field: fieldSegmentSource, cscd: r.cscd, err: err}
		}
	}
	if read, ok := errors.AsType[*offload.SourceError](err); ok {
		return sourceFailed(read.Err)
	}
	return destinationFailed(err)
}
