package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"odx/blockdev"
)

// dataTimeout bounds how long a client may take to send its body or to take its answer,
// while both are in memory.
const dataTimeout = 30 * time.Second

// errTooLarge: the body exceeds the bound of the route.
var errTooLarge = errors.New("body is too large")

// checkLength refuses a body that is longer than its route takes. It is called before
// there is memory for the body.
func (c *call) checkLength() error {
	if c.request.ContentLength > c.maxBody {
		return fmt.Errorf("%w: %d bytes; at most %d", errTooLarge, c.request.ContentLength, c.maxBody)
	}
	return nil
}

// readBody reads the body into one buffer: of its length if that is known, otherwise of
// the bound of the route, which is what was reserved.
func (c *call) readBody() error {
	n := c.request.ContentLength
	if n == 0 {
		return nil
	}
	// The end of the body removes the deadline.
	c.deadline((*http.ResponseController).SetReadDeadline)
	if n > 0 {
		c.parameters = make([]byte, n)
		if _, err := io.ReadFull(c.request.Body, c.parameters); err != nil {
			return fmt.Errorf("%w: parameters: %w", blockdev.ErrInvalid, err)
		}
		return nil
	}
	b := bytes.NewBuffer(make([]byte, 0, c.maxBody+bytes.MinRead)) // does not grow
	_, err := b.ReadFrom(http.MaxBytesReader(c.writer, c.request.Body, c.maxBody))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return fmt.Errorf("%w: more than %d bytes", errTooLarge, c.maxBody)
	case err != nil:
		return fmt.Errorf("%w: parameters: %w", blockdev.ErrInvalid, err)
	}
	c.parameters = b.Bytes()
	return nil
}

// deadline sets a deadline of the connection. Only one of a test knows none.
func (c *call) deadline(set func(*http.ResponseController, time.Time) error) {
	_ = set(http.NewResponseController(c.writer), time.Now().Add(dataTimeout))
}
