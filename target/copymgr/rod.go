package copymgr

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"odx/offload"
	"odx/target/scsi"
	"odx/tokens"
)

// Layout of a ROD CSCD descriptor (SPC-4 r37 6.4.5.9), from its beginning.
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

	// cscdRODProducer is the id of the logical unit that a token was made on.
	cscdRODProducer = 0xF800

	// maxInlineTokens bounds the inline data where ROD CSCD descriptors find their
	// tokens. MAXIMUM INLINE DATA LENGTH is about what segments write, and zero.
	maxInlineTokens = maxCSCDs * tokens.TokenLength

	// tokenBlockLength is where a ROD token has the logical block length of what it
	// was made of, as READ CAPACITY(16) does (SPC-4 r37 5.17.6.5).
	tokenBlockLength = 96
)

var (
	errRODWritten  = errors.New("a ROD of a point in time cannot be written")
	errRODProducer = fmt.Errorf("%w: the producer of a ROD is a descriptor of its own", tokens.ErrRemote)
)

// rodCSCD is a ROD CSCD descriptor that names a ROD token in the inline data.
type rodCSCD struct {
	token *tokens.Token
	// remote says that the token's maker is named by another descriptor.
	remote, deleteToken bool
}

// parseRODCSCD decodes a ROD CSCD descriptor: one that reads the bytes of a token.
// Those that populate a ROD are not supported.
func parseRODCSCD(d []byte, at int, inline []byte) (cscd, error) {
	be := binary.BigEndian
	wrong := func(field int) (cscd, error) {
		return cscd{}, scsi.InvalidFieldInParameterList(at+field, scsi.WholeField)
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

// rod is the bytes of a ROD token, which act as a block device that can be read
// (SPC-4 r37 5.17.7.6).
type rod struct {
	handle *tokens.Handle
	// deleteToken says that the token is deleted after the copy (DEL_TKN).
	deleteToken bool
	volume      string // that it was made of
	block       int64  // bytes
	length      int64  // bytes, whole blocks
	reader      *tokens.Reader
}

// newROD looks the token of a descriptor up. The error is one that refuses tokens,
// before anything is copied.
func (x *extendedCopy) newROD(c *cscd) (*rod, error) {
	if c.rod.remote {
		return nil, errRODProducer
	}
	h, err := x.unit.manager.tokens.Resolve(c.rod.token)
	if err != nil {
		return nil, err
	}
	info := h.Info()
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
		if err := r.reached.rod.handle.Delete(ctx, tokens.Deleted); err != nil {
			x.unit.manager.log.WithError(err).Warn("a token that should be deleted after EXTENDED COPY stays")
		}
	}
}

// rodFailed is what a segment ends with whose source is the token of a ROD.
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
