// Package logs has the logs of tests: one that discards its lines, and one that the test reads.
package logs

import (
	"bytes"
	"io"
	"sync"

	"github.com/sirupsen/logrus"
)

// Discard returns a log whose lines go nowhere.
func Discard() *logrus.Entry { return to(io.Discard) }

// Text is a log that can be read while it is written. Its zero value is empty.
type Text struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write appends p.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
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
