// Package logs has the logs of tests: one that discards its lines, and one that the test reads.
package logs

import (
	"bytes"
	"context"
	"io"
	"sync"

	"github.com/sirupsen/logrus"
)

// Discard returns a log whose lines go nowhere.
func Discard() *logrus.Entry { return to(io.Discard) }

// Text is a log that can be read while it is written. Its zero value is empty.
type Text struct {
	mu      sync.Mutex // guards what follows
	b       bytes.Buffer
	written chan struct{} // closed by the next Write; nil where none waits for it
}

// Write appends p.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.written != nil {
		close(t.written)
		t.written = nil
	}
	return t.b.Write(p)
}

// Await waits until text was written n times, or ctx ends, and returns its error then.
func (t *Text) Await(ctx context.Context, text string, n int) error {
	for {
		t.mu.Lock()
		if bytes.Count(t.b.Bytes(), []byte(text)) >= n {
			t.mu.Unlock()
			return nil
		}
		if t.written == nil {
			t.written = make(chan struct{})
		}
		written := t.written
		t.mu.Unlock()
		select {
		case <-written:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// String returns what was written so far.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// Entry returns a log that is written to t.
func (t *Text) Entry() *logrus.Entry { return to(t) }

func to(w io.Writer) *logrus.Entry {
	log := logrus.New()
	log.SetOutput(w)
	return logrus.NewEntry(log)
}
