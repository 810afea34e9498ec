package meta

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"odx/backstore/vfs"
)

const (
	// DefaultCacheBytes is what OpenBadger takes for a bound of zero.
	DefaultCacheBytes = 256 << 20

	// A memtable takes 1.3 times its size, and there are up to three: the
	// active one, one that is written out, one that waits. The smallest is
	// what Badger needs to take an Update of MaxOps and MaxBytes, which is 15 %
	// of a memtable at most.
	minMemTable = 16 << 20
	maxMemTable = 64 << 20

	// Badger writes through mmap, where a full file system is not an error but
	// a signal that kills the process. Updates are refused before that: this
	// many memtables must fit, which is what a flush and a compaction write.
	reserveMemTables = 4
)

type badgerKV struct {
	db      *badger.DB
	disk    vfs.FS
	dir     string
	lock    io.Closer
	reserve uint64 // bytes that must be free for an Update
	gate    gate
}

// OpenBadger opens the Badger database in folder dir, creating it if needed.
// cacheBytes bounds, roughly, the memory that it takes, of which 80 MiB are
// the least that it works with; 0 means DefaultCacheBytes. Badger's own log
// goes to log (which may be nil) at warning and debug level. ErrLocked when
// another process has the database open.
//
// Keys must not begin with "!badger!".
//
// All values stay in Badger's LSM tree, none goes to its value log: they are
// short (MaxValue), rewritten often, and the value log would want garbage
// collection of its own. Blocks are neither compressed (fingerprints and extent
// addresses do not compress) nor trusted (a CRC is checked as each enters the
// block cache).
func OpenBadger(dir string, log *logrus.Entry, cacheBytes int64) (KV, error) {
	if cacheBytes <= 0 {
		cacheBytes = DefaultCacheBytes
	}
	memTable := min(max(cacheBytes/16, minMemTable), maxMemTable)
	opts := badger.DefaultOptions(dir).
		WithLogger(newLogger(log)).
		WithMetricsEnabled(false). // they are global variables
		WithDetectConflicts(false).
		// An Update is durable when it returns. Without it Badger's Sync would
		// forget a memtable that is full and not yet written out, and a power
		// cut could keep a later Update and lose an earlier one.
		WithSyncWrites(true).
		WithMemTableSize(memTable).
		WithNumMemtables(1).
		WithNumCompactors(2).
		WithValueThreshold(1 << 20).
		WithValueLogFileSize(1 << 20).
		WithCompression(options.None).
		WithBlockCacheSize(max(cacheBytes/2, 8<<20)).
		WithIndexCacheSize(max(cacheBytes/8, 8<<20))
	opts.ChecksumVerificationMode = options.OnBlockRead

	disk := vfs.OS()
	if err := disk.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	// Badger locks too, but does not say so in a way that a caller can tell.
	lock, err := disk.Lock(filepath.Join(dir, "odx.lock"))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	if err := removeUnborn(dir); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open metadata in %s: %w", dir, err)
	}
	db, err := badger.Open(opts)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open metadata in %s: %w", dir, err)
	}
	return &badgerKV{db: db, disk: disk, dir: dir, lock: lock, reserve: uint64(reserveMemTables * memTable)}, nil
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

func (b *badgerKV) Get(key []byte) ([]byte, error) {
	if err := b.gate.enter(); err != nil {
		return nil, err
	}
	defer b.gate.leave()
	txn := b.db.NewTransaction(false)
	defer txn.Discard()
	return badgerView{txn}.Get(key)
}

func (b *badgerKV) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return b.View(func(r Reader) error { return r.Scan(prefix, fn) })
}

func (b *badgerKV) View(fn func(Reader) error) error {
	if err := b.gate.enter(); err != nil {
		return err
	}
	defer b.gate.leave()
	txn := b.db.NewTransaction(false)
	defer txn.Discard()
	return fn(badgerView{txn})
}

// badgerView reads within one transaction.
type badgerView struct{ txn *badger.Txn }

func (v badgerView) Get(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, ErrNotFound
	}
	item, err := v.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
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

func (v badgerView) Scan(prefix []byte, fn func(key, value []byte) error) error {
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

func (b *badgerKV) Update(ops []Op) error {
	if err := check(ops); err != nil {
		return err
	}
	if err := b.gate.enter(); err != nil {
		return err
	}
	defer b.gate.leave()
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
		if errors.Is(err, badger.ErrTxnTooBig) {
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
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

func (b *badgerKV) checkSpace() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.dir, &st); err != nil {
		return fmt.Errorf("update metadata: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < b.reserve {
		return fmt.Errorf("update metadata: %d MiB are free in %s, less than the %d MiB that its log needs: %w",
			free>>20, b.dir, b.reserve>>20, unix.ENOSPC)
	}
	return nil
}

// Sync makes the names of new files durable; their content is.
func (b *badgerKV) Sync() error {
	if err := b.gate.enter(); err != nil {
		return err
	}
	defer b.gate.leave()
	return b.disk.SyncDir(b.dir)
}

func (b *badgerKV) Close() error {
	if err := b.gate.close(); err != nil {
		return err
	}
	if err := errors.Join(b.db.Close(), b.lock.Close()); err != nil {
		return fmt.Errorf("close metadata: %w", err)
	}
	return nil
}

// gate makes close wait for those inside: Badger unmaps its files on Close,
// and a reader would die of it.
type gate struct {
	mu     sync.Mutex // guards what follows
	inside int
	closed bool
	empty  chan struct{} // closed when the last one leaves a closed gate
}

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	g.inside++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.closed && g.inside == 0 {
		close(g.empty)
	}
}

func (g *gate) close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	g.closed, g.empty = true, make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	<-g.empty
	return nil
}
