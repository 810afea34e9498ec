package api

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"odx/admin"
)

const (
	// retryPatience is how long a request that changes nothing is sent again. While one
	// process takes the place of another, the socket of the API closes and comes back.
	retryPatience = 2 * time.Second
	// retryPause is the pause between two attempts.
	retryPause = 20 * time.Millisecond
)

// ErrNoAnswer is the error of a request whose connection ended before the whole answer was
// there: whether the server has executed it is not known.
var ErrNoAnswer = errors.New("no answer")

// do sends a request, and again if its connection ended without an answer and the request
// changes nothing. The error is that of the first attempt.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, unanswered, err := c.attempt(req)
	if !unanswered {
		return resp, err
	}
	if err = fmt.Errorf("%w: %w", ErrNoAnswer, err); req.Method != http.MethodGet {
		return nil, err
	}
	ticker := time.NewTicker(retryPause)
	defer ticker.Stop()
	for end := time.Now().Add(retryPatience); time.Now().Before(end); {
		select {
		case <-ticker.C:
		case <-req.Context().Done():
			return nil, err
		}
		resp, unanswered, again := c.attempt(req)
		if !unanswered && !errors.Is(again, admin.ErrNotRunning) {
			return resp, again
		}
	}
	return nil, err
}

// attempt sends a request once. unanswered: there was a connection, and it ended before an
// answer began.
func (c *Client) attempt(req *http.Request) (resp *http.Response, unanswered bool, err error) {
	var connected, answered atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { connected.Store(true) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	resp, err = c.http.Do(req.WithContext(ctx))
	return resp, err != nil && connected.Load() && !answered.Load(), err
}

// connectionEnded reports whether err is that of a connection which ended, and not of one
// that was never there.
func connectionEnded(err error) bool {
	var connection *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &connection) && connection.Op != "dial"
}
