package pebblekv

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"odx/backstore/meta"
)

// reader reads an instance as of a point in time.
type reader struct {
	d  *db
	in *instance
	at pebble.Reader // a snapshot; nil where nothing was stored
}

// Get implements meta.Reader.
func (d *db) Get(key []byte) (value []byte, err error) {
	err = d.withInstance(func(in *instance) error {
		if in == nil {
			return meta.ErrNotFound
		}
		value, err = reader{d, in, in.p}.Get(key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// Scan implements meta.Reader.
func (d *db) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return d.View(func(r meta.Reader) error { return r.Scan(prefix, fn) })
}

// View implements meta.KV.
func (d *db) View(fn func(meta.Reader) error) error {
	return d.with(func(r reader) error { return fn(r) })
}

// Keys implements meta.KV.
func (d *db) Keys(prefix []byte, fn func(key []byte) error) error {
	return d.with(func(r reader) error {
		return unstopped(r.scan(prefix, func(key []byte, _ *pebble.Iterator) error {
			if err := fn(bytes.Clone(key)); err != nil {
				return stopped{err}
			}
			return nil
		}))
	})
}

// with calls fn with a point in time.
func (d *db) with(fn func(r reader) error) error {
	return d.withInstance(func(in *instance) error {
		if in == nil {
			return fn(reader{d: d})
		}
		s := in.p.NewSnapshot()
		return with(fn(reader{d, in, s}), s.Close())
	})
}

// rowKey returns the key that a row has in Pebble.
func rowKey(key []byte) []byte { return append([]byte{rowPrefix}, key...) }

// Get implements meta.Reader.
func (r reader) Get(key []byte) ([]byte, error) {
	sealed, err := r.get(rowKey(key))
	if err != nil {
		var d *meta.DamagedError
		if errors.As(err, &d) {
			d.Key = bytes.Clone(key)
		}
		return nil, err
	}
	body, err := meta.Unseal(key, sealed)
	if err != nil {
		return nil, r.d.damaged(key, err)
	}
	return body, nil
}

// get returns a copy of what Pebble has, never nil.
func (r reader) get(key []byte) ([]byte, error) {
	if r.at == nil {
		return nil, meta.ErrNotFound
	}
	value, closer, err := r.at.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, meta.ErrNotFound
	}
	if err != nil {
		return nil, r.d.readError(err)
	}
	value = append([]byte{}, value...)
	return value, r.d.readError(closer.Close())
}

// Scan implements meta.Reader.
func (r reader) Scan(prefix []byte, fn func(key, value []byte) error) error {
	var damage []error
	err := r.scan(prefix, func(key []byte, it *pebble.Iterator) error {
		sealed, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		body, err := meta.Unseal(key, sealed)
		if err != nil {
			damage = append(damage, r.d.damaged(key, err))
			return nil
		}
		if err := fn(key, body); err != nil {
			return stopped{err}
		}
		return nil
	})
	if _, ok := errors.AsType[stopped](err); ok || len(damage) == 0 {
		return unstopped(err)
	}
	return errors.Join(append(damage, err)...)
}

// unstopped returns the error of who is called with rows as it is.
func unstopped(err error) error {
	if s, ok := errors.AsType[stopped](err); ok {
		return s.err
	}
	return err
}

// stopped is an error of who is called with rows.
type stopped struct{ err error }

func (s stopped) Error() string { return s.err.Error() }

// scan calls fn with each row whose key has a prefix. Where rows cannot be read it goes on
// with the next table, since nothing says which keys the damaged block has, and returns
// ErrDamaged at the end.
func (r reader) scan(prefix []byte, fn func(key []byte, it *pebble.Iterator) error) error {
	if r.at == nil {
		return nil
	}
	from := rowKey(prefix)
	o := &pebble.IterOptions{LowerBound: from, UpperBound: after(from)}
	var damage []error
	for from != nil {
		last, err := r.scanFrom(o, from, fn)
		if err == nil {
			break
		}
		err = r.d.readError(err)
		if !errors.Is(err, meta.ErrDamaged) {
			return errors.Join(append(damage, err)...)
		}
		damage = append(damage, err)
		if from, err = r.nextTable(last, o.UpperBound); err != nil {
			return errors.Join(append(damage, err)...)
		}
	}
	return errors.Join(damage...)
}

// scanFrom is scan until an error. last is the key of the last row, or from.
func (r reader) scanFrom(o *pebble.IterOptions, from []byte, fn func(key []byte, it *pebble.Iterator) error) (last []byte, err error) {
	it, err := r.at.NewIter(o)
	if err != nil {
		return from, err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	last = bytes.Clone(from)
	for ok := it.SeekGE(from); ok; ok = it.Next() {
		last = append(last[:0], it.Key()...)
		if err := fn(last[1:], it); err != nil {
			return last, err
		}
	}
	return last, it.Error()
}

// nextTable returns the first key of a table that begins after a key, nil if there is none
// before end.
func (r reader) nextTable(key, end []byte) ([]byte, error) {
	levels, err := r.in.p.SSTables()
	if err != nil {
		return nil, r.d.readError(err)
	}
	var next []byte
	for _, table := range slices.Concat(levels...) {
		first := table.Smallest.UserKey
		if bytes.Compare(first, key) > 0 && bytes.Compare(first, end) < 0 && (next == nil || bytes.Compare(first, next) < 0) {
			next = first
		}
	}
	return next, nil
}

// after returns the first key after all that have a prefix, which has a byte that is not FFh.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; ; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
}

// readError returns an error of Pebble as one of package meta.
func (d *db) readError(err error) error {
	if err == nil || errors.Is(err, meta.ErrDamaged) {
		return err
	}
	if _, ok := errors.AsType[stopped](err); ok {
		return err
	}
	for _, lost := range []error{fs.ErrNotExist, io.EOF, io.ErrUnexpectedEOF, syscall.EIO} {
		if errors.Is(err, lost) {
			return d.damaged(nil, err)
		}
	}
	if pebble.IsCorruptionError(err) {
		return d.damaged(nil, err)
	}
	return err
}

// damaged counts and logs damage, of a row where key is not nil.
func (d *db) damaged(key []byte, why error) error {
	err := &meta.DamagedError{File: d.o.Dir, Key: bytes.Clone(key), Err: why}
	d.stats.damaged.Add(1)
	if _, known := d.noted.LoadOrStore(err.Error(), true); !known {
		d.o.Log.WithError(why).WithField("file", d.o.Dir).Error("metadata is damaged")
	}
	return err
}
