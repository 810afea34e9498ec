package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/replica"
	"odx/stream"
)

const (
	// streamIdle is how long the other side of a stream may neither take nor send a byte.
	// The stream as a whole may take any time.
	streamIdle = 5 * time.Minute
	// streamMemory is what a stream takes of the memory of requests, until it ends.
	streamMemory = 8 << 20
)

// streamEnd is the trailer of a stream that is sent: a v1.Line, which says what was sent or
// why it ended too early.
const streamEnd = "Odx-Stream-End"

// errStreams: as many streams are sent and received as there is memory for.
var errStreams = errors.New("too many streams at a time; try again later, or raise memory in the configuration")

// streams is a stream in the body, or in the answer.
var streams = load{stream: true, long: true}

// streamRoutes are the routes of streams.
var streamRoutes = []route{
	{http.MethodGet, "/v1/send", "The stream of ?source=, a snapshot, a volume or file:NAME; with ?base= what differs from that snapshot.", http.StatusOK, streams, operates, looks, sendStream},
	{http.MethodPost, "/v1/receive", "Make ?name= of the stream in the body.", http.StatusOK, streams, operates, changes("receive"), receiveStream},
	{http.MethodGet, "/v1/partials", "Streams that ended too early, and can be continued.", http.StatusOK, lists, reads, looks, func(c *call) (any, error) {
		s, err := c.streamer()
		if err != nil {
			return nil, err
		}
		return listV1(PartialV1)(s.Partials(c.ctx))
	}},
	{http.MethodDelete, "/v1/partials/{name}", "Give up what was received of a stream.", http.StatusNoContent, short, operates, changes("receive drop"), func(c *call) (any, error) {
		s, err := c.streamer()
		if err != nil {
			return nil, err
		}
		return nil, s.DropPartial(c.ctx, c.volume())
	}},
}

// streamer returns what sends and receives.
func (c *call) streamer() (replica.Streamer, error) {
	if c.streams == nil {
		return nil, fmt.Errorf("%w: this server sends and receives no streams", errNoResource)
	}
	return c.streams, nil
}

// reserveStream takes the memory of a stream. Streams have half of all memory, so that they
// cannot keep shorter requests waiting until they end.
func (s *Server) reserveStream(c *call) (end func(), err error) {
	most := max(s.memory.Limit()/2/streamMemory, 1)
	if n := s.streaming.Add(1); n > most {
		s.streaming.Add(-1)
		return nil, errStreams
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	// Not as the client that it is: its other requests would wait until the stream ends.
	client, n := "streams of "+clientOf(c.request), min(streamMemory, s.memory.Limit()/2)
	if err := s.memory.Take(ctx, client, n); err != nil {
		s.streaming.Add(-1)
		return nil, err
	}
	return func() {
		s.memory.Release(client, n)
		s.streaming.Add(-1)
	}, nil
}

func sendStream(c *call) (any, error) {
	s, err := c.streamer()
	if err != nil {
		return nil, err
	}
	q := c.request.URL.Query()
	r := replica.SendRequest{Source: q.Get("source"), Base: q.Get("base"), Resume: q.Get("resume")}
	if q.Has("start") {
		if r.Start, err = c.number("start"); err != nil {
			return nil, err
		}
	}
	if r.Level, err = stream.ParseLevel(cmp.Or(q.Get("compress"), stream.None.String())); err != nil {
		return nil, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	w := &streamWriter{call: c}
	sent, err := s.Send(c.ctx, r, w, nil)
	if !w.begun {
		if err == nil {
			err = io.ErrUnexpectedEOF // a stream is never empty
		}
		return nil, err
	}
	c.sent = true
	var end any = v1.Line[struct{}, v1.Stream]{Result: new(SentV1(sent))}
	if err != nil {
		end, _ = failureOf(err)
	}
	text, jsonErr := json.Marshal(end)
	c.writer.Header().Set(streamEnd, string(text))
	return nil, errors.Join(err, jsonErr)
}

// streamWriter writes the stream that answers a request.
type streamWriter struct {
	call  *call
	begun bool
}

func (w *streamWriter) Write(p []byte) (int, error) {
	c := w.call
	if !w.begun {
		w.begun = true
		c.writer.Header().Set("Content-Type", "application/octet-stream")
		c.writer.Header().Set("Trailer", streamEnd)
		c.writer.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(c.writer).SetWriteDeadline(time.Now().Add(streamIdle)) // only one of a test has none
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.writer.Write(p)
}

// streamReader reads the stream in the body of a request.
type streamReader struct{ call *call }

func (r streamReader) Read(p []byte) (int, error) {
	c := r.call
	err := http.NewResponseController(c.writer).SetReadDeadline(time.Now().Add(streamIdle))
	if ctxErr := c.ctx.Err(); ctxErr != nil {
		return 0, ctxErr
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := c.request.Body.Read(p)
	if err != nil && err != io.EOF {
		if ctxErr := c.ctx.Err(); ctxErr != nil {
			err = ctxErr
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("%w: nothing has come for %v", stream.ErrTruncated, streamIdle)
		}
	}
	return n, err
}

func receiveStream(c *call) (any, error) {
	q := c.request.URL.Query()
	r := replica.ReceiveRequest{Name: q.Get("name"), Snapshot: q.Get("snapshot")}
	var err error
	if r.Resume, err = c.flag("resume"); err != nil {
		return nil, err
	}
	if r.Force, err = c.flag("force"); err != nil {
		return nil, err
	}
	if by := callerOf(c.ctx); r.Force && by.role < administers {
		return nil, &forbiddenError{by, administers} // it can replace what is there, as a revert does
	}
	c.subject(objectOf(r.Name))
	s, err := c.streamer()
	if err != nil {
		return nil, err
	}
	// A read does not end with the context by itself.
	defer context.AfterFunc(c.ctx, func() {
		_ = http.NewResponseController(c.writer).SetReadDeadline(time.Now())
	})()
	return asV1(ReceivedV1)(s.Receive(c.ctx, r, streamReader{c}, nil))
}
