package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Numbers of the protocol; the names are those of its specification
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
const (
	nbdMagic         = 0x4e42444d41474943
	iHaveOpt         = 0x49484156454f5054
	replyMagic       = 0x0003e889045565a9
	requestMagic     = 0x25609513
	simpleReplyMagic = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optAbort = 2
	optGo    = 7

	repAck      = 1
	repInfo     = 3
	repErrUnsup = 1<<31 + 1

	infoExport = 0

	flagHasFlags  = 1 << 0
	flagSendFlush = 1 << 2

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3
)

// maxRequest is the longest read or write that is served, in bytes.
const maxRequest = 32 << 20

var order = binary.BigEndian

var errRequest = errors.New("nbd: request that makes no sense")

// connection is one client's. The first failed read or write ends it.
type connection struct {
	disk *Disk
	r    *bufio.Reader
	w    *bufio.Writer
}

// serve serves a client until it leaves.
func (d *Disk) serve(conn net.Conn) error {
	c := &connection{disk: d, r: bufio.NewReaderSize(conn, 256<<10), w: bufio.NewWriterSize(conn, 256<<10)}
	ready, err := c.negotiate()
	for ready && err == nil {
		ready, err = c.request()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil // it was killed, which is what this is for
	}
	return err
}

func (c *connection) send(fields ...any) error {
	for _, f := range fields {
		if err := binary.Write(c.w, order, f); err != nil {
			return err
		}
	}
	return c.w.Flush()
}

// negotiate answers options until the client chooses the disk; ready is false
// when it leaves.
func (c *connection) negotiate() (ready bool, err error) {
	if err := c.send(uint64(nbdMagic), uint64(iHaveOpt), uint16(flagFixedNewstyle|flagNoZeroes)); err != nil {
		return false, err
	}
	var clientFlags uint32
	if err := binary.Read(c.r, order, &clientFlags); err != nil {
		return false, err
	}
	for {
		var option struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := binary.Read(c.r, order, &option); err != nil {
			return false, err
		}
		if option.Magic != iHaveOpt {
			return false, fmt.Errorf("%w: option with magic number %x", errRequest, option.Magic)
		}
		if _, err := io.CopyN(io.Discard, c.r, int64(option.Length)); err != nil {
			return false, err
		}
		switch option.Option {
		case optGo: // whatever name it has given
			info := []any{uint16(infoExport), uint64(c.disk.size), uint16(flagHasFlags | flagSendFlush)}
			err := c.send(append([]any{uint64(replyMagic), option.Option, uint32(repInfo), uint32(12)}, info...)...)
			if err == nil {
				err = c.send(uint64(replyMagic), option.Option, uint32(repAck), uint32(0))
			}
			return true, err
		case optAbort:
			return false, c.send(uint64(replyMagic), option.Option, uint32(repAck), uint32(0))
		default:
			if err := c.send(uint64(replyMagic), option.Option, uint32(repErrUnsup), uint32(0)); err != nil {
				return false, err
			}
		}
	}
}

// request serves one request; more is false when the client leaves.
func (c *connection) request() (more bool, err error) {
	var q struct {
		Magic       uint32
		Flags, Type uint16
		Cookie      uint64
		Offset      uint64
		Length      uint32
	}
	if err := binary.Read(c.r, order, &q); err != nil {
		return false, err
	}
	if q.Magic != requestMagic || q.Length > maxRequest || q.Offset+uint64(q.Length) > uint64(c.disk.size) {
		return false, fmt.Errorf("%w: %+v", errRequest, q)
	}
	var data []byte
	switch q.Type {
	case cmdRead:
		data = make([]byte, q.Length)
		_, err = c.disk.file.ReadAt(data, int64(q.Offset))
	case cmdWrite:
		p := make([]byte, q.Length)
		if _, err = io.ReadFull(c.r, p); err == nil {
			_, err = c.disk.file.WriteAt(p, int64(q.Offset))
		}
	case cmdFlush:
		err = c.disk.file.Sync()
	case cmdDisc:
		return false, nil
	default:
		err = fmt.Errorf("%w: type %d", errRequest, q.Type)
	}
	if err != nil {
		return false, err
	}
	return true, c.send(uint32(simpleReplyMagic), uint32(0), q.Cookie, data)
}
