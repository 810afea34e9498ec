package audit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	// maxQueue bounds the lines that wait for the file.
	maxQueue = 1024
	// SumPeriod is how long changes are summed up; see Sum.
	SumPeriod = time.Minute
)

// errBehind: the file takes lines more slowly than they come.
var errBehind = errors.New("the file is slower than the changes")

// Change is one change.
type Change struct {
	// What is the operation in a few words, such as "volume create".
	What string
	// Subject is what changes, such as "volume src", or the key of a configuration.
	Subject string
	// Before and After are the states, as text or as something that has JSON; nil and ""
	// are none. They contain no secret.
	Before, After any
	// Err is why it failed; a part of it may have been done.
	Err error
}

// Options are where lines go in addition to the log.
type Options struct {
	// File is the path of the file; empty for none.
	File string
	// MaxBytes is the size beyond which the file is renamed and a new one begun, in
	// bytes; it is rounded up to MiB.
	MaxBytes int64
	// Keep is how many renamed files are kept; the oldest are removed. At least 1.
	Keep int
}

// Status is whether the file has every line.
type Status struct {
	// File is that of the options.
	File string
	// Problem is why the last line is not in the file; empty if it is.
	Problem string
	// Lost is how many lines are in the log of the server only, since it started.
	Lost uint64
}

// Log records changes. Its methods are called concurrently.
type Log struct {
	log   *logrus.Entry
	queue chan item
	stop  chan struct{} // closed by Close
	ended chan struct{} // closed when the writer has ended
	once  sync.Once

	mu      sync.Mutex // guards what follows
	options Options
	renewed bool // the writer has not seen options
	status  Status
	unsaid  uint64 // lost lines since the file was written last
	sums    map[sumKey]*sum
	flood   flood
	recent  recent
}

// item is a line for the file, or reached, which is closed when the lines before it have
// been written or lost.
type item struct {
	line    []byte
	reached chan struct{}
}

// New returns a log that writes to log, and to the file of o. The caller closes it.
func New(log *logrus.Entry, o Options) *Log {
	l := &Log{
		log: log, queue: make(chan item, maxQueue), stop: make(chan struct{}), ended: make(chan struct{}),
		sums: map[sumKey]*sum{}, flood: newFlood(),
	}
	l.Configure(o)
	go l.run()
	return l
}

// Configure replaces the options for the lines that are recorded after it.
func (l *Log) Configure(o Options) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.options, l.renewed, l.status.File = o, true, o.File
	if o.File == "" {
		l.status.Problem, l.unsaid = "", 0
	}
}

// Record records a change by the actor of ctx. The changes of initiators beyond 500 at once
// and 1 a second are summed up, as Sum does.
func (l *Log) Record(ctx context.Context, c Change) {
	a := From(ctx)
	l.mu.Lock()
	summed := l.flood.takes(a, &c)
	l.mu.Unlock()
	if !summed {
		l.write(newRecord(a, &c))
	}
}

func newRecord(a Actor, c *Change) *record {
	r := &record{
		Version: recordVersion, Time: time.Now().UTC(), What: c.What, Subject: bounded(c.Subject),
		Before: stateOf(c.Before), After: stateOf(c.After), By: recordOf(a), actor: a,
	}
	if c.Err != nil {
		r.Error = bounded(c.Err.Error())
	}
	return r
}

// write writes a line to the log, and has it written to the file.
func (l *Log) write(r *record) {
	l.show(r)
	select {
	case l.queue <- item{line: r.line()}:
	default:
		l.lose(errBehind)
	}
}

// show writes a line to the log, and keeps it for Recent.
func (l *Log) show(r *record) {
	r.print(l.log)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent.add(r)
}

// Sync returns when the lines recorded before it are in the file, or cannot be, or when
// ctx ends.
func (l *Log) Sync(ctx context.Context) {
	reached := make(chan struct{})
	select {
	case l.queue <- item{reached: reached}:
	case <-l.ended:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-reached:
	case <-l.ended:
	case <-ctx.Done():
	}
}

// Status returns the state of the file.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Close writes what was recorded and closes the file. What is recorded later is in the
// log of the server only. If ctx ends before a disk has answered, its error is returned,
// and the writer ends with the answer.
func (l *Log) Close(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes lines to the file until Close.
func (l *Log) run() {
	defer close(l.ended)
	var f file
	defer f.close()
	ticker := time.NewTicker(SumPeriod)
	defer ticker.Stop()
	for {
		select {
		case i := <-l.queue:
			l.take(&f, i)
		case <-ticker.C:
			l.writeSums(&f)
		case <-l.stop:
			l.drain(&f)
			l.writeSums(&f)
			return
		}
	}
}

// drain takes what is in the queue.
func (l *Log) drain(f *file) {
	for {
		select {
		case i := <-l.queue:
			l.take(f, i)
		default:
			return
		}
	}
}

// take writes a line to the file.
func (l *Log) take(f *file, i item) {
	if i.reached != nil {
		close(i.reached)
		return
	}
	l.mu.Lock()
	if l.renewed {
		f.use(l.options)
		l.renewed = false
	}
	l.mu.Unlock()
	if err := f.write(i.line); err != nil {
		l.lose(err)
		return
	}
	l.found(f)
}

// lose counts a line that is not in the file. The first of several in a row is logged.
func (l *Log) lose(err error) {
	l.mu.Lock()
	first := l.status.Problem == ""
	if l.options.File == "" {
		l.mu.Unlock()
		return
	}
	l.status.Problem = err.Error()
	l.status.Lost++
	l.unsaid++
	file := l.options.File
	l.mu.Unlock()
	if first {
		l.log.WithError(err).WithField("file", file).Error("audit file not written; lines are in this log only until it is")
	}
}

// found notes that the file was written, and after a loss records how much is missing.
func (l *Log) found(f *file) {
	l.mu.Lock()
	lost, problem := l.unsaid, l.status.Problem
	l.unsaid, l.status.Problem = 0, ""
	l.mu.Unlock()
	if lost == 0 {
		return
	}
	l.log.WithField("lost", lost).Warn("audit file written again; the lost lines are in this log only")
	r := newRecord(Actor{Kind: Server}, &Change{What: "audit lines lost", After: lost, Err: errors.New(problem)})
	if err := f.write(r.line()); err != nil {
		l.lose(err)
	}
}
