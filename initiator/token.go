package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// TokenLength is the length in bytes of a ROD token.
const TokenLength = 512

// Token is a ROD token. Its holder may use it.
type Token [TokenLength]byte

// pageThirdPartyCopy is the VPD page with the limits of offloaded copies.
const pageThirdPartyCopy = 0x8f

// ErrNoOffload is the error of a disk that does not copy by token.
var ErrNoOffload = errors.New("the logical unit does not offer token copies (VPD page 8Fh has no block device ROD limits)")

// TokenLimits is what the third-party copy page says about tokens of block
// devices (SBC-3 6.6.6.3). Zero means not said.
type TokenLimits struct {
	MaxRanges int
	// MaxTokenTransferSize and OptimalTransferCount are in logical blocks.
	MaxTokenTransferSize, OptimalTransferCount uint64
	// Inactivity timeouts in seconds.
	MaxInactivity, DefaultInactivity uint32
}

// parseTokenLimits looks for the block device ROD limits descriptor; nil if
// there is none.
func parseTokenLimits(page []byte) *TokenLimits {
	be := binary.BigEndian
	for p := page[min(4, len(page)):]; len(p) >= 4 && len(p) >= 4+int(be.Uint16(p[2:])); p = p[4+int(be.Uint16(p[2:])):] {
		if be.Uint16(p) == 0 && be.Uint16(p[2:]) >= 0x20 {
			return &TokenLimits{
				MaxRanges:            int(be.Uint16(p[10:])),
				MaxInactivity:        be.Uint32(p[12:]),
				DefaultInactivity:    be.Uint32(p[16:]),
				MaxTokenTransferSize: be.Uint64(p[20:]),
				OptimalTransferCount: be.Uint64(p[28:]),
			}
		}
	}
	return nil
}

// TokenLimits returns what the logical unit says about token copies; ok is
// false when it offers none.
func (d *Disk) TokenLimits() (l TokenLimits, ok bool) {
	if d.limits == nil {
		return l, false
	}
	return *d.limits, true
}

// listIdentifiers gives each copy operation of the session its own (SPC-4 r37
// 5.17.4.2).
type listIdentifiers struct{ last atomic.Uint32 }

func (l *listIdentifiers) next() uint32 { return l.last.Add(1) }

// populateHeaderLength is the length of the POPULATE TOKEN parameter list before
// its ranges, writeHeaderLength that of WRITE USING TOKEN.
const (
	populateHeaderLength = 16
	writeHeaderLength    = 536
	rangeLength          = 16
)

// PopulateToken makes a token that stands for a range as it is now, or for the
// beginning of it, and returns how many bytes it stands for.
func (d *Disk) PopulateToken(ctx context.Context, off, length int64) (*Token, int64, error) {
	if d.limits == nil {
		return nil, 0, ErrNoOffload
	}
	if err := d.checkRange(off, length); err != nil {
		return nil, 0, err
	}
	limit := d.limits.MaxTokenTransferSize
	if limit == 0 || limit > d.maxRange {
		limit = d.maxRange
	}
	length = d.firstBlocks(length, limit)
	list := make([]byte, populateHeaderLength+rangeLength)
	be := binary.BigEndian
	be.PutUint16(list, uint16(len(list)-2))
	be.PutUint16(list[14:], rangeLength)
	d.putRange(list[populateHeaderLength:], off, length)
	id := d.lists.next()
	if err := d.do(ctx, &Command{CDB: copyCDB(0x10, id, len(list)), Out: list}); err != nil {
		return nil, 0, fmt.Errorf("POPULATE TOKEN: %w", err)
	}
	info, err := d.tokenInformation(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	if info.token == nil {
		return nil, 0, fmt.Errorf("POPULATE TOKEN: no token, copy operation status %02Xh", info.status)
	}
	return info.token, int64(info.blocks) * int64(d.BlockLength), nil
}

// WriteUsingToken makes a range equal to the token's bytes from an offset on,
// or the beginning of the range, and returns how many bytes it did.
func (d *Disk) WriteUsingToken(ctx context.Context, t *Token, offset, off, length int64) (int64, error) {
	if d.limits == nil {
		return 0, ErrNoOffload
	}
	if err := d.checkRange(off, length); err != nil {
		return 0, err
	}
	if offset < 0 || offset%int64(d.BlockLength) != 0 {
		return 0, fmt.Errorf("offset %d into the token is not a multiple of the block length %d", offset, d.BlockLength)
	}
	length = d.firstBlocks(length, d.maxRange)
	list := make([]byte, writeHeaderLength+rangeLength)
	be := binary.BigEndian
	be.PutUint16(list, uint16(len(list)-2))
	be.PutUint64(list[8:], uint64(offset/int64(d.BlockLength)))
	copy(list[16:], t[:])
	be.PutUint16(list[534:], rangeLength)
	d.putRange(list[writeHeaderLength:], off, length)
	id := d.lists.next()
	err := d.do(ctx, &Command{CDB: copyCDB(0x11, id, len(list)), Out: list})
	if err == nil {
		return length, nil
	}
	// The range was longer than what the token or the target's time gave.
	var sense *SenseError
	if errors.As(err, &sense) && sense.Key == KeyCopyAborted && !sense.Deferred && sense.ASC == ascDataUnderrun && sense.InformationValid {
		if n := sense.Information; n > 0 && n <= uint64(length)/uint64(d.BlockLength) {
			return int64(n) * int64(d.BlockLength), nil
		}
	}
	return 0, fmt.Errorf("WRITE USING TOKEN: %w", err)
}

// ForgetToken deletes a token: it writes no blocks with it, and sets DEL_TKN (SBC-3
// 5.46). The target may take that as a hint.
func (d *Disk) ForgetToken(ctx context.Context, t *Token) error {
	if d.limits == nil {
		return ErrNoOffload
	}
	list := make([]byte, writeHeaderLength+rangeLength)
	be := binary.BigEndian
	be.PutUint16(list, uint16(len(list)-2))
	list[2] = 0x02 // DEL_TKN
	copy(list[16:], t[:])
	be.PutUint16(list[534:], rangeLength)
	if err := d.do(ctx, &Command{CDB: copyCDB(0x11, d.lists.next(), len(list)), Out: list}); err != nil {
		return fmt.Errorf("WRITE USING TOKEN: %w", err)
	}
	return nil
}

// ascDataUnderrun is COPY TARGET DEVICE DATA UNDERRUN.
const ascDataUnderrun = 0x0d04

// maxRangeBlocks is the most that one range descriptor can name. leastRange is what
// every target takes, in bytes, whatever its MAXIMUM TRANSFER LENGTH: Windows sends it.
const (
	maxRangeBlocks = 1<<32 - 1
	leastRange     = 256 << 20
)

// firstBlocks cuts a length in bytes to a number of blocks.
func (d *Disk) firstBlocks(length int64, blocks uint64) int64 {
	return int64(min(uint64(length)/uint64(d.BlockLength), blocks)) * int64(d.BlockLength)
}

// putRange writes a block device range descriptor.
func (d *Disk) putRange(p []byte, off, length int64) {
	binary.BigEndian.PutUint64(p, uint64(off/int64(d.BlockLength)))
	binary.BigEndian.PutUint32(p[8:], uint32(length/int64(d.BlockLength)))
}

// copyCDB returns the CDB of a third-party copy command that sends a parameter
// list.
func copyCDB(action byte, list uint32, length int) []byte {
	cdb := cdb16(0x83, action)
	binary.BigEndian.PutUint32(cdb[6:], list)
	binary.BigEndian.PutUint32(cdb[10:], uint32(length))
	return cdb
}

// tokenInformation is what RECEIVE ROD TOKEN INFORMATION answers.
type tokenInformation struct {
	status byte
	blocks uint64
	token  *Token
}

// withoutErrors reports that the operation has completed so, with all, with a part of the ROD, or
// with data left (SPC-4 r37 6.24).
func (i *tokenInformation) withoutErrors() bool {
	return i.status == 0x01 || i.status == 0x03 || i.status == 0x04
}

// informationLength is enough for a header, sense data and one token.
const informationLength = 32 + 252 + 4 + 2 + TokenLength

// tokenInformation asks what became of a copy operation, until it is over.
func (d *Disk) tokenInformation(ctx context.Context, list uint32) (*tokenInformation, error) {
	for {
		p := make([]byte, informationLength)
		c := Command{CDB: cdb16(0x84, 0x07), In: p}
		binary.BigEndian.PutUint32(c.CDB[2:], list)
		binary.BigEndian.PutUint32(c.CDB[10:], uint32(len(p)))
		if err := d.do(ctx, &c); err != nil {
			return nil, fmt.Errorf("RECEIVE ROD TOKEN INFORMATION: %w", err)
		}
		info, delay, err := parseInformation(p[:c.Received])
		if err != nil || delay == 0 {
			return info, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(delay):
		}
	}
}

// parseInformation reads the parameter data (SPC-4 r37 6.26); delay is not zero
// while the operation goes on.
func parseInformation(p []byte) (info *tokenInformation, delay time.Duration, err error) {
	be := binary.BigEndian
	if len(p) < 36 || len(p) < 36+int(p[13]) {
		return nil, 0, fmt.Errorf("RECEIVE ROD TOKEN INFORMATION: %d bytes", len(p))
	}
	info = &tokenInformation{status: p[5] & 0x7f, blocks: be.Uint64(p[16:])}
	if info.status >= 0x10 && info.status <= 0x12 {
		ms := min(be.Uint32(p[8:]), 1000)
		return info, time.Duration(max(ms, 1)) * time.Millisecond, nil
	}
	if units := p[15]; units != 0xf1 {
		return nil, 0, fmt.Errorf("RECEIVE ROD TOKEN INFORMATION: the transfer count has the unit %02Xh, not blocks", units)
	}
	if n := int(p[14]); n > 0 && n <= int(p[13]) && !info.withoutErrors() {
		if e := parseSense(p[32 : 32+n]); !e.completed() {
			return info, 0, fmt.Errorf("copy operation status %02Xh: %w", info.status, e)
		}
	}
	p = p[32+int(p[13]):]
	if be.Uint32(p) >= 2+TokenLength && len(p) >= 6+TokenLength {
		info.token = (*Token)(p[6:])
	}
	return info, 0, nil
}
