package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Disk is a logical unit of a session: a block address space, which can be
// copied by token where its target can do that. Offsets and lengths are bytes,
// and whole logical blocks. Its methods may be called concurrently.
type Disk struct {
	session *Session
	limits  *TokenLimits

	// BlockLength is the logical block length in bytes.
	BlockLength int
	// Blocks is the capacity in logical blocks.
	Blocks uint64
	// ThirdPartyCopy is the 3PC bit of the standard INQUIRY data.
	ThirdPartyCopy bool
	// maxTransfer is the longest READ or WRITE, in bytes.
	maxTransfer int
	// zeroes is whether WRITE SAME with UNMAP makes blocks of zeros.
	zeroes bool
	lists  listIdentifiers
}

// maxTransferLength bounds one READ or WRITE where the target allows more.
const maxTransferLength = 1 << 20

// Open logs in and asks the logical unit what it is.
func Open(ctx context.Context, o Options) (*Disk, error) {
	s, err := Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	d := &Disk{session: s}
	if err := d.inquire(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%v: %w", o.URL, err), s.Close())
	}
	return d, nil
}

// Close logs out.
func (d *Disk) Close() error { return d.session.Close() }

// Size returns the capacity in bytes.
func (d *Disk) Size() int64 { return int64(d.Blocks) * int64(d.BlockLength) }

// maxAttentions bounds the unit attentions in a row that a command is repeated
// after.
const maxAttentions = 8

// do runs a command, again after each unit attention: we have no state that
// one could make wrong.
func (d *Disk) do(ctx context.Context, c *Command) error {
	for range maxAttentions {
		err := d.session.Do(ctx, c)
		var sense *SenseError
		if !errors.As(err, &sense) || sense.Key != KeyUnitAttention {
			return err
		}
	}
	return d.session.Do(ctx, c)
}

// inquire reads what does not change while we are logged in.
func (d *Disk) inquire(ctx context.Context) error {
	standard := make([]byte, 96)
	c := Command{CDB: []byte{0x12, 0, 0, 0, byte(len(standard)), 0}, In: standard}
	if err := d.do(ctx, &c); err != nil {
		return fmt.Errorf("INQUIRY: %w", err)
	}
	if kind := standard[0]; kind&0xe0 != 0 || kind&0x1f != 0 {
		return fmt.Errorf("there is no disk at this LUN (INQUIRY byte 0 is %02xh)", kind)
	}
	d.ThirdPartyCopy = standard[5]&0x08 != 0
	capacity := make([]byte, 32)
	c = Command{CDB: cdb16(0x9e, 0x10), In: capacity}
	binary.BigEndian.PutUint32(c.CDB[10:], uint32(len(capacity)))
	if err := d.do(ctx, &c); err != nil {
		return fmt.Errorf("READ CAPACITY(16): %w", err)
	}
	if d.Blocks = binary.BigEndian.Uint64(capacity) + 1; d.Blocks == 0 {
		return errors.New("READ CAPACITY(16): no capacity")
	}
	n := binary.BigEndian.Uint32(capacity[8:])
	if n < 512 || n > 1<<16 || n&(n-1) != 0 || d.Blocks > 1<<62/uint64(n) {
		return fmt.Errorf("READ CAPACITY(16): %d blocks of %d bytes", d.Blocks, n)
	}
	d.BlockLength = int(n)
	return d.readLimits(ctx)
}

// readLimits reads the VPD pages that bound what is sent.
func (d *Disk) readLimits(ctx context.Context) error {
	pages, err := d.VPD(ctx, 0x00)
	if err != nil {
		return err
	}
	d.maxTransfer = maxTransferLength
	for _, page := range pages[min(4, len(pages)):] {
		switch page {
		case 0xb0: // Block Limits
			p, err := d.VPD(ctx, page)
			if err != nil {
				return err
			}
			if len(p) >= 12 {
				if n := int64(binary.BigEndian.Uint32(p[8:])) * int64(d.BlockLength); n > 0 {
					d.maxTransfer = int(min(n, maxTransferLength))
				}
			}
		case 0xb2: // Logical Block Provisioning: LBPWS and LBPRZ
			p, err := d.VPD(ctx, page)
			if err != nil {
				return err
			}
			d.zeroes = len(p) > 5 && p[5]&0x40 != 0 && p[5]&0x04 != 0
		case pageThirdPartyCopy:
			p, err := d.VPD(ctx, page)
			if err != nil {
				return err
			}
			d.limits = parseTokenLimits(p)
		}
	}
	return nil
}

// maxPageLength bounds a VPD page that we read.
const maxPageLength = 4096

// VPD returns a vital product data page (SPC-4 r37 7.8), header included.
func (d *Disk) VPD(ctx context.Context, page byte) ([]byte, error) {
	return d.VPDPart(ctx, page, maxPageLength)
}

// VPDPart returns as much of a page as an ALLOCATION LENGTH lets through.
func (d *Disk) VPDPart(ctx context.Context, page byte, allocation uint16) ([]byte, error) {
	p := make([]byte, allocation)
	c := Command{CDB: []byte{0x12, 1, page, byte(allocation >> 8), byte(allocation), 0}, In: p}
	if err := d.do(ctx, &c); err != nil {
		return nil, fmt.Errorf("VPD page %02Xh: %w", page, err)
	}
	if c.Received < 4 || p[1] != page {
		return nil, fmt.Errorf("VPD page %02Xh: %d bytes of another page", page, c.Received)
	}
	return p[:min(c.Received, 4+int(binary.BigEndian.Uint16(p[2:])))], nil
}

// ReadAt fills p from off.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.transfer(ctx, p, off, func(part []byte, off int64) error {
		c := Command{CDB: d.rangeCDB(0x88, off, len(part)), In: part}
		if err := d.do(ctx, &c); err != nil {
			return err
		}
		if c.Received < len(part) {
			return fmt.Errorf("%d of %d bytes came", c.Received, len(part))
		}
		return nil
	})
}

// WriteAt writes p at off.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.transfer(ctx, p, off, func(part []byte, off int64) error {
		return d.do(ctx, &Command{CDB: d.rangeCDB(0x8a, off, len(part)), Out: part})
	})
}

// transfer calls move with parts of p that one command can carry.
func (d *Disk) transfer(ctx context.Context, p []byte, off int64, move func(part []byte, off int64) error) error {
	if err := d.checkRange(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), d.maxTransfer)
		if err := move(p[:n], off); err != nil {
			return fmt.Errorf("LBA %d, %d bytes: %w", off/int64(d.BlockLength), n, err)
		}
		p, off = p[n:], off+int64(n)
	}
	return ctx.Err()
}

func (d *Disk) checkRange(off, length int64) error {
	block := int64(d.BlockLength)
	if off < 0 || length < 0 || off%block != 0 || length%block != 0 || off > d.Size() || length > d.Size()-off {
		return fmt.Errorf("%d bytes at %d are not whole blocks of %d bytes inside a disk of %d", length, off, block, d.Size())
	}
	return nil
}

// zeroLength is the most that one WRITE SAME unmaps, in bytes.
const zeroLength = 256 << 20

// Zero makes a range read as zeros, without sending them where the logical unit
// can unmap.
func (d *Disk) Zero(ctx context.Context, off, length int64) error {
	if err := d.checkRange(off, length); err != nil {
		return err
	}
	for length > 0 {
		n := min(length, int64(maxTransferLength))
		var err error
		if d.zeroes {
			n = min(length, zeroLength)
			c := Command{CDB: d.rangeCDB(0x93, off, int(n)), Out: make([]byte, d.BlockLength)} // WRITE SAME(16)
			c.CDB[1] = 0x08                                                                    // UNMAP
			err = d.do(ctx, &c)
		} else {
			err = d.WriteAt(ctx, make([]byte, n), off)
		}
		if err != nil {
			return fmt.Errorf("zeros at LBA %d: %w", off/int64(d.BlockLength), err)
		}
		off, length = off+n, length-n
	}
	return nil
}

// Flush makes what was written durable (SYNCHRONIZE CACHE(16) of the whole).
func (d *Disk) Flush(ctx context.Context) error {
	if err := d.do(ctx, &Command{CDB: cdb16(0x91, 0)}); err != nil {
		return fmt.Errorf("SYNCHRONIZE CACHE: %w", err)
	}
	return nil
}

// cdb16 returns a CDB of 16 bytes with an operation code and byte 1.
func cdb16(code, second byte) []byte {
	cdb := make([]byte, maxCDBLength)
	cdb[0], cdb[1] = code, second
	return cdb
}

// rangeCDB returns a CDB of 16 bytes that names a range.
func (d *Disk) rangeCDB(code byte, off int64, length int) []byte {
	cdb := cdb16(code, 0)
	binary.BigEndian.PutUint64(cdb[2:], uint64(off/int64(d.BlockLength)))
	binary.BigEndian.PutUint32(cdb[10:], uint32(length/d.BlockLength))
	return cdb
}
