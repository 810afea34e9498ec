//go:build rados

package ceph_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/internal/kit/netns"
	"odx/internal/kit/tokenclient"
)

// client is an initiator that writes number after number to the blocks of a LUN, each when the
// one before was answered.
type client struct {
	session *tokenclient.Session
	program *tokenclient.Client
	close   func() // ends the connection as a crash does
}

// dial logs in, and tries again until the server answers.
func dial(t testing.TB, n *node) *client {
	t.Helper()
	c, err := startClient(t)
	must.Succeed(t, err)
	c.logIn(t, n)
	return c
}

// dialFrom is dial on a host.
func dialFrom(t testing.TB, h *netns.Host, n *node) *client {
	t.Helper()
	var c *client
	must.Succeed(t, h.Do(func() (err error) {
		c, err = startClient(t)
		return err
	}))
	c.logIn(t, n)
	return c
}

// startClient starts a client, which is closed at the end of a test.
func startClient(t testing.TB) (*client, error) {
	ctx, cancel := context.WithCancel(context.Background())
	program, err := tokenclient.Start(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	c := &client{program: program}
	// The program is killed: its server may have ended, and libiscsi would try for a minute to
	// log out from it.
	c.close = sync.OnceFunc(func() {
		cancel()
		_ = program.Close() // killed
	})
	t.Cleanup(c.close)
	return c, nil
}

// logIn logs in to a node, and tries again until the server answers.
func (c *client) logIn(t testing.TB, n *node) {
	t.Helper()
	for end := time.Now().Add(takeOverMax); ; {
		var err error
		if c.session, err = c.program.Open(n.url(), tokenclient.OpenOptions{}); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("log in to %s: %v", n.name, err)
		}
	}
	must.Succeed(t, c.clearAttentions())
}

// write writes a number to the block whose turn it is; an error means that it was not acknowledged.
func (c *client) write(number uint64) error { return c.writeAt(number%blocks, number) }

// errRefused is a command that the server answered, and not with GOOD.
var errRefused = errors.New("refused")

// clearAttentions takes what is pending of unit attentions.
func (c *client) clearAttentions() error {
	for range 4 {
		if a, err := c.session.Command(make([]byte, 6), nil, 0); err != nil || a.Good() {
			return err
		}
	}
	return errRefused
}

// writeAt writes a number to a block.
func (c *client) writeAt(block, number uint64) error {
	p := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, number), blockBytes/8)
	a, err := c.session.Write(bytes.NewReader(p), block*sectors, sectors, tokenclient.WriteOptions{})
	if err == nil && !a.Good() {
		err = fmt.Errorf("%w: %v", errRefused, a)
	}
	return err
}

// readAt reads the number of a block.
func (c *client) readAt(block uint64) (uint64, error) {
	var got bytes.Buffer
	a, err := c.session.Read(&got, block*sectors, sectors)
	if err == nil && !a.Good() {
		err = fmt.Errorf("%w: %v", errRefused, a)
	}
	if err != nil {
		return 0, err
	}
	p := got.Bytes()
	number := binary.LittleEndian.Uint64(p)
	for i := 0; i < len(p); i += 8 {
		if other := binary.LittleEndian.Uint64(p[i:]); other != number {
			return 0, fmt.Errorf("block %d has number %d, and %d at byte %d", block, number, other, i)
		}
	}
	return number, nil
}

// writing is a client that writes until a write is not acknowledged.
type writing struct {
	acked chan uint64
	last  uint64
}

func startWriting(c *client, first uint64) *writing {
	w := &writing{acked: make(chan uint64, 1<<16), last: first - 1}
	go func() {
		defer close(w.acked)
		for n := first; c.write(n) == nil; n++ {
			w.acked <- n
		}
	}()
	return w
}

// await waits for so many acknowledged writes.
func (w *writing) await(t *testing.T, n int) {
	t.Helper()
	if !w.goesOn(t, n) {
		t.Fatalf("a write after number %d is not acknowledged", w.last)
	}
}

// goesOn waits for so many acknowledged writes, or for one that is not.
func (w *writing) goesOn(t *testing.T, n int) bool {
	t.Helper()
	for range n {
		select {
		case number, ok := <-w.acked:
			if !ok {
				return false
			}
			w.last = number
		case <-time.After(takeOverMax):
			t.Fatal("nothing is acknowledged")
		}
	}
	return true
}

// end waits for the write that is not acknowledged, and returns the last one that was.
func (w *writing) end() uint64 {
	for number := range w.acked {
		w.last = number
	}
	return w.last
}

// seen returns the last one that was acknowledged by now.
func (w *writing) seen() uint64 {
	for len(w.acked) > 0 {
		w.last = <-w.acked
	}
	return w.last
}

// writeThrough proves that the write cache is off and stays off.
func (c *client) writeThrough(t *testing.T) {
	t.Helper()
	sense := []byte{0x1A, 0x08, 0x08, 0, 64, 0} // MODE SENSE(6), DBD, page Caching
	page := c.command(t, sense, nil, 64)
	if len(page) < 7 || page[6]&0x04 != 0 {
		t.Errorf("the write cache is on: % x", page)
		return
	}
	list := append(make([]byte, 4), page[4:24]...)
	list[4] &^= 0x80 // PS
	list[6] |= 0x04  // WCE
	a, err := c.session.Command([]byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, 0)
	if err != nil || !a.Sense.Is(0x5, 0x26, 0x00) {
		t.Errorf("MODE SELECT that turns the write cache on: %v, %v", a, err)
	}
}

// command sends a command that has to end GOOD, and returns its data.
func (c *client) command(t *testing.T, cdb, out []byte, in int) []byte {
	t.Helper()
	a, err := c.session.Command(cdb, out, in)
	if err != nil || !a.Good() {
		t.Fatalf("command % x: %v, %v", cdb, a, err)
	}
	return a.Data
}

// identity returns the serial number of the LUN, which its other names follow from.
func (c *client) identity(t *testing.T) string {
	page := c.command(t, []byte{0x12, 1, 0x80, 0, 252, 0}, nil, 252)
	return string(page[4:])
}

// holdsNumbers proves that a LUN has all numbers that were acknowledged.
func (c *client) holdsNumbers(t *testing.T, last uint64) {
	t.Helper()
	var got bytes.Buffer
	a, err := c.session.Read(&got, 0, blocks*sectors)
	if err != nil || !a.Good() {
		t.Fatalf("read: %v, %v", a, err)
	}
	for b := range uint64(blocks) {
		number := binary.LittleEndian.Uint64(got.Bytes()[b*blockBytes:])
		want := last - (last-b+blocks)%blocks
		if number != want && number != last+1 {
			t.Errorf("block %d has number %d, want %d: acknowledged were those up to %d", b, number, want, last)
		}
	}
}

const reservationKey = 0x6f6478

// register registers a key without APTPL.
func (c *client) register(t *testing.T) {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list[8:], reservationKey)
	c.command(t, []byte{0x5F, 0x06, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0) // REGISTER AND IGNORE EXISTING KEY
}

// registered proves that the registration is there.
func (c *client) registered(t *testing.T) {
	t.Helper()
	data := c.command(t, []byte{0x5E, 0x00, 0, 0, 0, 0, 0, 0, 64, 0}, nil, 64) // READ KEYS
	if len(data) < 16 || binary.BigEndian.Uint64(data[8:]) != reservationKey {
		t.Errorf("the registration is lost: % x", data)
	}
}
