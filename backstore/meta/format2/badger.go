// Package format2 reads the metadata of a store of format 2: a Badger database
// that was changed in place, and a checkpoint that may be on its way into it.
// Only the upgrade of a store needs it.
package format2

import (
	"bytes"
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
	db      *badger.DB
	scratch *scratch // its directory
}

// Open opens the metadata of the store in dir, with a checkpoint that is on its way
// into it, and changes no file of it: Badger, which cannot read without writing,
// gets links to the tables and copies of the rest in a new directory in scratchIn,
// which Close removes, and the next Open if this process is killed. The error wraps ENOSPC where there is too little space
// for that.
func Open(dir, scratchIn string, log *logrus.Entry) (_ *DB, err error) {
	b := &DB{}
	from := filepath.Join(dir, directory)
	if _, err := os.Stat(from); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	if b.scratch, err = newScratch(scratchIn); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if err := b.checkSpace(); err != nil {
		return nil, err
	}
	if err := duplicate(from, b.scratch.dir); err != nil {
		return nil, fmt.Errorf("open metadata in %s: %w", from, err)
	}
	if err := verify(b.scratch.dir); err != nil {
		return nil, fmt.Errorf("open metadata in %s: %w", from, err)
	}
	opts := badger.DefaultOptions(b.scratch.dir).
		WithLogger(newLogger(log)).
		WithBypassLockGuard(true). // it is locked
		WithMetricsEnabled(false). // they are global variables
		WithDetectConflicts(false).
		WithMemTableSize(memTable).
		WithNumMemtables(1).
		WithNumCompactors(2).
		WithValueThreshold(1 << 20).
		WithValueLogFileSize(1 << 20).
		WithCompression(options.None).
		WithBlockCacheSize(cacheBytes / 2).
		WithIndexCacheSize(cacheBytes / 4)
	opts.ChecksumVerificationMode = options.OnTableAndBlockRead
	db, err := badger.Open(opts)
	if err != nil { // db is not nil then, and cannot be closed
		return nil, fmt.Errorf("open metadata in %s: %w", from, err)
	}
	b.db = db
	// Its iterators drop what fails its checksum, without an error.
	if err := b.db.VerifyChecksum(); err != nil {
		return nil, fmt.Errorf("open metadata in %s: %w", from, err)
	}
	return b, applyCheckpoint(vfs.OS(), dir, b)
}

// duplicate makes what Badger may write to in a directory: links to tables, which
// it never changes, and copies of the rest. Log files that Badger had created and
// not given their length when its process died are left out: it refuses to open
// a database that has one (dgraph-io/badger issue 2207, seen in 4.9.6), and
// nothing is in them.
func duplicate(from, to string) error {
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		ext := filepath.Ext(e.Name())
		switch {
		case ext == ".sst" && unix.Access(source, unix.W_OK) == nil:
			err = os.Symlink(source, target)
		case (ext == ".mem" || ext == ".vlog") && info.Size() == 0, e.Name() == "LOCK", e.Name() == "odx.lock":
			continue
		default:
			err = copyFile(source, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a file, which is mostly zeros that need no blocks of the disk.
func copyFile(source, target string) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	piece, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	off := int64(0)
	for {
		n, err := io.ReadFull(in, piece)
		if !bytes.Equal(piece[:n], zeros[:n]) {
			if _, err := out.WriteAt(piece[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out.Truncate(off)
		}
		if err != nil {
			return err
		}
	}
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
	if err := unix.Statfs(b.scratch.dir, &st); err != nil {
		return fmt.Errorf("update metadata: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < reserveBytes {
		return fmt.Errorf("update metadata: %d MiB are free in %s, less than the %d MiB that its log needs: %w",
			free>>20, b.scratch.dir, reserveBytes>>20, unix.ENOSPC)
	}
	return nil
}

// View calls fn with the rows, which nothing changes.
func (b *DB) View(fn func(meta.Reader) error) error { return fn(b) }

// Close closes the database and removes what it made. No other method runs.
func (b *DB) Close() error {
	var err error
	if b.db != nil {
		err = b.db.Close()
	}
	if err = errors.Join(err, b.scratch.remove()); err != nil {
		return fmt.Errorf("close metadata: %w", err)
	}
	return nil
}
