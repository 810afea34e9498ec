package audit

import "time"

// maxRecent bounds the lines that Recent returns.
const maxRecent = 100

// Line is a line of the log, as text.
type Line struct {
	Time          time.Time
	What, Subject string
	// Before and After are the states; "" for none. What is no text is JSON.
	Before, After string
	// Error is why the change failed, "" if it did not.
	Error string
	// By is who changed it.
	By string
	// Requests is how many changes the line stands for, 0 for one, and Failed how many of
	// them had errors.
	Requests, Failed int
}

// recent are the last lines.
type recent struct {
	lines [maxRecent]*record
	next  int // where the next one goes
}

func (r *recent) add(line *record) {
	r.lines[r.next] = line
	r.next = (r.next + 1) % maxRecent
}

// Recent returns the last lines since the process started, the latest first, at most 100.
func (l *Log) Recent() []Line {
	l.mu.Lock()
	kept := l.recent
	l.mu.Unlock()
	lines := []Line{}
	for i := range maxRecent {
		r := kept.lines[(kept.next+maxRecent-1-i)%maxRecent]
		if r == nil {
			break
		}
		lines = append(lines, Line{
			Time: r.Time, What: r.What, Subject: r.Subject, Before: textOf(r.Before), After: textOf(r.After), Error: r.Error,
			By: r.actor.String(), Requests: r.Requests, Failed: r.Failed,
		})
	}
	return lines
}
