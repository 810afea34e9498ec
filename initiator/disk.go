package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"odx/blockdev"
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
	// Vendor is T10 VENDOR IDENTIFICATION, without the blanks after it.
	Vendor string
	// Thin is whether the logical unit is thin provisioned (LBPME).
	Thin bool
	// ThirdPartyCopy is the 3PC bit of the standard INQUIRY data.
	ThirdPartyCopy bool
	// maxTransfer is the longest READ or WRITE, in bytes.
	maxTransfer int
	// maxRange is the longest range descriptor of a copy by token, in blocks.
	maxRange  uint64
	writeSame writeSame
	lists     listIdentifiers
	attention func(*SenseError) error // nil: each is ignored
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

const (
	// maxAttentions bounds the unit attentions, and answers that say nothing of the command, in
	// a row that a command is repeated after.
	maxAttentions = 8
	// busyLimit bounds how long a command is repeated that finds the logical unit
	// busy, and busyPause what is waited between: twice as long each time, at most
	// busyMaxPause.
	busyLimit    = 30 * time.Second
	busyPause    = 5 * time.Millisecond
	busyMaxPause = time.Second
)

// do runs a command, again after each unit attention and whatever else has kept it from being
// performed: there is no state here that one could make wrong. A logical unit that is busy is
// asked again for a while.
func (d *Disk) do(ctx context.Context, c *Command) error {
	attentions, pause, began := 0, busyPause, time.Now()
	for {
		err := d.session.Do(ctx, c)
		var sense *SenseError
		var status *StatusError
		switch {
		case errors.As(err, &sense) && sense.repeat() && attentions < maxAttentions:
			attentions++
			if sense.Key == KeyUnitAttention && d.attention != nil {
				if err := d.attention(sense); err != nil {
					return err
				}
			}
		case errors.As(err, &status) && status.busy() && time.Since(began)+pause < busyLimit:
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, busyMaxPause)
		default:
			return err
		}
	}
}

// sleep waits, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
	d.Vendor = strings.TrimRight(string(standard[8:16]), " \x00")
	if err := d.readCapacity(ctx); err != nil {
		return err
	}
	return d.readLimits(ctx)
}

// readLimits reads the VPD pages that bound what is sent.
func (d *Disk) readLimits(ctx context.Context) error {
	d.maxTransfer, d.maxRange = maxTransferLength, maxRangeBlocks
	pages, err := d.VPD(ctx, 0x00)
	if refusal(err) != nil {
		return nil // a logical unit without VPD pages: nothing is promised
	}
	if err != nil {
		return err
	}
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
					d.maxRange = uint64(max(n, leastRange)) / uint64(d.BlockLength)
				}
			}
			d.writeSame.readBlockLimits(p)
		case 0xb2: // Logical Block Provisioning
			p, err := d.VPD(ctx, page)
			if err != nil {
				return err
			}
			d.writeSame.readProvisioning(p)
		case pageThirdPartyCopy:
			p, err := d.VPD(ctx, page)
			if err != nil {
				return err
			}
			d.limits = parseTokenLimits(p)
		}
	}
	d.writeSame.settle(d.BlockLength)
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
		c := Command{CDB: d.rangeCDB(0x88, off, int64(len(part))), In: part}
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
	return d.write(ctx, p, off, 0)
}

// write writes p at off, with bits of byte 1 of the CDB.
func (d *Disk) write(ctx context.Context, p []byte, off int64, bits byte) error {
	return d.transfer(ctx, p, off, func(part []byte, off int64) error {
		c := Command{CDB: d.rangeCDB(0x8a, off, int64(len(part))), Out: part}
		c.CDB[1] = bits
		if err := d.do(ctx, &c); err != nil {
			return err
		}
		if c.Taken < len(part) {
			return fmt.Errorf("the target reports GOOD, and has taken %d of %d bytes", c.Taken, len(part))
		}
		return nil
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
	if off%block != 0 || length%block != 0 || !(blockdev.Range{Offset: off, Length: length}).In(d.Size()) {
		return fmt.Errorf("%d bytes at %d are not whole blocks of %d bytes inside a disk of %d", length, off, block, d.Size())
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
func (d *Disk) rangeCDB(code byte, off, length int64) []byte {
	cdb := cdb16(code, 0)
	binary.BigEndian.PutUint64(cdb[2:], uint64(off/int64(d.BlockLength)))
	binary.BigEndian.PutUint32(cdb[10:], uint32(length/int64(d.BlockLength)))
	return cdb
}
