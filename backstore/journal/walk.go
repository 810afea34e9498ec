package journal

import "context"

// walk reads the records of one file, up to limit (0: all).
type walk struct {
	o     Options
	f     file
	limit LSN
	// record is called for each valid record, in order. Its payload is valid during the
	// call.
	record func(r frame) error
	// gap is called for missing records, from first to last as far as known. A walk
	// without gap ends there.
	gap func(first, last LSN, cause string)
}

// run returns the number of the last record.
func (w *walk) run(ctx context.Context) (LSN, error) {
	handle, err := w.o.FS.Open(w.f.name)
	if err != nil {
		return 0, err
	}
	defer handle.Close()
	c, err := newScanner(handle, w.f.header)
	if err != nil {
		return 0, err
	}
	c.blind = w.o.blind
	want := w.f.header.first
	for w.limit == 0 || want < w.limit {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		r, ok, err := c.next(want)
		if err != nil {
			return 0, err
		}
		if !ok && w.gap != nil {
			r, ok, err = w.skip(c, want)
		}
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		if err := w.record(r); err != nil {
			return want - 1, err
		}
		want = r.lsn + 1
	}
	return want - 1, nil
}

// skip finds the next record after the missing record want.
func (w *walk) skip(c *scanner, want LSN) (r frame, ok bool, err error) {
	for {
		if r, ok, err = c.search(want); err != nil || !ok {
			break
		}
		if !r.note {
			break
		}
		_ = w.record(r)
	}
	cause := "damaged"
	if c.unreadable != nil {
		cause = c.unreadable.Error()
	}
	switch {
	case err != nil:
	case ok && (w.limit == 0 || r.lsn < w.limit):
		w.gap(want, r.lsn-1, cause)
	case w.limit > 0:
		w.gap(want, w.limit-1, cause)
		return frame{}, false, nil
	}
	return r, ok, err
}
