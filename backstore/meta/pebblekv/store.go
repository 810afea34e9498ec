package pebblekv

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"odx/backstore/meta"
)

// ingestBytes is the length from which on a checkpoint goes on in another table.
const ingestBytes = 32 << 20

// Store implements meta.KV.
func (d *db) Store(_ int64, rows func(put func(meta.Op) error) error) error {
	d.storing.Lock()
	defer d.storing.Unlock()
	in, err := d.writable()
	if err != nil {
		return err
	}
	next := mark{d.o.StoreID, d.last.Load() + 1}
	// A number that may have been stored is not used again: a table that was left behind
	// would look like one of this checkpoint.
	d.last.Store(next.number)
	b := &builder{d: d, in: in}
	if err = b.add(markKey, next.encode()); err == nil {
		err = rows(b.put)
	}
	if err == nil {
		err = b.endTable()
	}
	if err != nil {
		return errors.Join(err, b.abandon())
	}
	err = in.p.Ingest(context.Background(), b.names)
	if why := in.fs.change(); why != nil {
		err = why // Pebble's error is of the same cause
	}
	if err != nil {
		return errors.Join(fmt.Errorf("store a checkpoint: %w", err), b.abandon())
	}
	d.stats.checkpoints.Add(b.bytes)
	return nil
}

// builder writes the tables of a checkpoint.
type builder struct {
	d     *db
	in    *instance
	names []string
	bytes int64

	w    *sstable.Writer
	last []byte
	held int64 // bytes in the table that is open
}

// put adds a change of a row.
func (b *builder) put(op meta.Op) error {
	if len(op.Key) > meta.MaxKey || len(op.Value) > meta.MaxValue {
		return fmt.Errorf("%w: key of %d bytes, value of %d", meta.ErrTooLarge, len(op.Key), len(op.Value))
	}
	key := rowKey(op.Key)
	if op.Value == nil {
		return b.add(key, nil)
	}
	return b.add(key, meta.Seal(op.Key, op.Value))
}

// add adds a key to a table, or its deletion.
func (b *builder) add(key, sealed []byte) error {
	if b.last != nil && bytes.Compare(key, b.last) <= 0 {
		return fmt.Errorf("row %q comes after row %q", key[1:], b.last[1:])
	}
	b.last = append(b.last[:0], key...)
	if b.held >= ingestBytes {
		if err := b.endTable(); err != nil {
			return err
		}
	}
	if b.w == nil {
		if err := b.begin(); err != nil {
			return err
		}
	}
	b.held += int64(len(key) + len(sealed))
	if sealed == nil {
		return b.w.Delete(key)
	}
	return b.w.Set(key, sealed)
}

// begin begins a table.
func (b *builder) begin() error {
	b.d.attempts++
	name := b.d.path(fmt.Sprintf("%s%d", madePrefix, b.d.attempts))
	f, err := b.in.fs.Create(name, pvfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	b.names, b.held = append(b.names, name), 0
	o := b.d.tableOptions()
	b.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)
	return nil
}

// tableOptions are those of a table that is to be ingested.
func (d *db) tableOptions() sstable.WriterOptions {
	o := defaults().MakeWriterOptions(0, formatVersion.MaxTableFormat())
	o.BlockSize = blockBytes
	return o
}

// defaults are Pebble's options.
func defaults() *pebble.Options {
	o := &pebble.Options{}
	o.EnsureDefaults()
	return o
}

// endTable makes the table durable.
func (b *builder) endTable() error {
	if b.w == nil {
		return nil
	}
	w := b.w
	b.w = nil
	if err := w.Close(); err != nil {
		return err
	}
	info, err := w.Raw().Metadata()
	if err != nil {
		return err
	}
	b.bytes += int64(info.Size)
	return nil
}

// abandon removes what is not stored. What Pebble has taken over has another name.
func (b *builder) abandon() error {
	if b.w != nil {
		_ = b.w.Close() // it is removed
	}
	for _, name := range b.names {
		_ = b.d.o.FS.Remove(name) // found again when the rows are opened for writing
	}
	return nil
}
