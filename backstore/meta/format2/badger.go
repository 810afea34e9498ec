// Package format2 reads the metadata of a store of format 2: a Badger database
// that was changed in place, and a checkpoint that may be on its way into it.
// Only the upgrade of a store needs it.
package format2

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"odx/backstore/meta"
	"odx/backstore/vfs"
)

const (
	cacheBytes = 64 << 20
	memTable   = 16 << 20

	// Badger writes through mmap, where a full file system is not an error but
	// a signal that kills the process. What opening and one flush of a memtable
	// write must fit.
	reserveBytes = 4 * memTable

	directory = "metadata"
)

// DB is the open metadata of a store of format 2.
type DB struct {
	db   *badger.DB
	disk vfs.FS
	dir  string
	lock io.Closer
}

// Open opens the metadata of the store in dir and applies a checkpoint that is
// on its way into it. Badger needs the file system of the operating system, and
// changes its files. vfs.ErrLocked when another process has the database open;
// the error wraps ENOSPC where there is too little space.
func Open(dir string, log *logrus.Entry) (*DB, error) {
	b := &DB{disk: vfs.OS(), dir: filepath.Join(dir, directory)}
	if _, err := os.Stat(b.dir); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	if err := b.checkSpace(); err != nil {
		return nil, err
	}
	opts := badger.DefaultOptions(b.dir).
		WithLogger(newLogger(log)).
		WithMetricsEnabled(false). // they are global variables
		WithDetectConflicts(false).
		WithSyncWrites(true).
		WithMemTableSize(memTable).
		WithNumMemtables(1).
		WithNumCompactors(2).
		WithValueThreshold(1 << 20).
		WithValueLogFileSize(1 << 20).
		WithCompression(options.None).
		WithBlockCacheSize(cacheBytes / 2).
		WithIndexCacheSize(cacheBytes / 4)
	opts.ChecksumVerificationMode = options.OnTableAndBlockRead

	// Badger locks too, but does not say so in a way that a caller can tell.
	lock, err := b.disk.Lock(filepath.Join(b.dir, "odx.lock"))
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	b.lock = lock
	if err = removeUnborn(b.dir); err == nil {
		b.db, err = badger.Open(opts)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open metadata in %s: %w", b.dir, err)
	}
	if err := applyCheckpoint(b.disk, dir, b); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// removeUnborn removes the log files that Badger had created and not given
// their length when its process died: it refuses to open a database that has
// one (dgraph-io/badger issue 2207, seen in 4.9.6). Nothing is in them.
func removeUnborn(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".mem" && ext != ".vlog" {
			continue
		}
		info, err := e.Info()
		if err == nil && info.Size() == 0 {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Get implements meta.Reader.
func (b *DB) Get(key []byte) ([]byte, error) {
	txn := b.db.NewTransaction(false)
	defer txn.Discard()
	return view{txn}.Get(key)
}

// Scan implements meta.Reader.
func (b *DB) Scan(prefix []byte, fn func(key, value []byte) error) error {
	txn := b.db.NewTransaction(false)
	defer txn.Discard()
	return view{txn}.Scan(prefix, fn)
}

// view reads within one transaction.
type view struct{ txn *badger.Txn }

func (v view) Get(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, meta.ErrNotFound
	}
	item, err := v.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, meta.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	value, err := item.ValueCopy(make([]byte, 0, item.ValueSize()))
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

func (v view) Scan(prefix []byte, fn func(key, value []byte) error) error {
	it := v.txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		err := item.Value(func(value []byte) error { return fn(item.Key(), value) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *DB) update(ops []meta.Op) error {
	if err := b.checkSpace(); err != nil {
		return err
	}
	txn := b.db.NewTransaction(true)
	defer txn.Discard()
	for _, op := range ops {
		var err error
		if op.Value == nil {
			err = txn.Delete(op.Key)
		} else {
			err = txn.Set(op.Key, op.Value)
		}
		if err != nil {
			return fmt.Errorf("update metadata: %w", err)
		}
	}
	if err := txn.Commit(); err != nil {
		// Badger's errors do not say what the system call said.
		return fmt.Errorf("update metadata: %w", errors.Join(err, b.checkSpace()))
	}
	return nil
}

func (b *DB) checkSpace() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.dir, &st); err != nil {
		return fmt.Errorf("update metadata: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < reserveBytes {
		return fmt.Errorf("update metadata: %d MiB are free in %s, less than the %d MiB that its log needs: %w",
			free>>20, b.dir, reserveBytes>>20, unix.ENOSPC)
	}
	return nil
}

// sync makes the names of new files durable; their content is.
func (b *DB) sync() error { return b.disk.SyncDir(b.dir) }

// Close closes the database. No other method runs.
func (b *DB) Close() error {
	if err := errors.Join(b.db.Close(), b.lock.Close()); err != nil {
		return fmt.Errorf("close metadata: %w", err)
	}
	return nil
}
