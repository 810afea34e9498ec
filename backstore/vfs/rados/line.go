package rados

import (
	"fmt"
	"strconv"
	"strings"
)

// Line says that a process is one of a line of them, each of which is started when the one before has
// ended, as the process that starts them knows for certain: it has waited for it. Its zero value: it
// is in none.
type Line struct {
	ID     string // random, of the line
	Number uint64 // of the process; the first one has 1
}

// ParseLine returns the line with a text, of Line.String.
func ParseLine(text string) (Line, error) {
	id, number, _ := strings.Cut(text, ".")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 || id == "" || strings.Contains(id, "/") {
		return Line{}, fmt.Errorf("%.60q is no line of processes", text)
	}
	return Line{id, n}, nil
}

// String is what a cookie has of the line.
func (l Line) String() string { return l.ID + "." + strconv.FormatUint(l.Number, 10) }

// follows reports whether a lock is that of a process of the line that has ended.
func (l Line) follows(h Holder) bool {
	parts := strings.Split(h.Cookie, "/")
	if len(parts) != 3 {
		return false
	}
	before, err := ParseLine(parts[1])
	return err == nil && before.ID == l.ID && before.Number < l.Number
}

// Succeed has this process claim the store as one of a line, and ends the lock of one before it in
// the line, which waits for nothing then: that process answers no read any more, since it has ended,
// and what it has sent is refused once the epoch is raised, as after any other claim.
func (f *FS) Succeed(l Line) error {
	f.mu.Lock()
	f.line = l
	f.mu.Unlock()
	held, err := f.pool.Holder(rootObject)
	if notThere(err) || err == nil && !l.follows(held) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.pool.Break(rootObject, held)
}
