package backstore

import (
	"cmp"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore/extent"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/segment"
	"odx/backstore/vfs"
	"odx/owner"
)

// Defaults of Options.
const (
	DefaultDedupUnit  = 4 << 10
	DefaultCacheBytes = 256 << 20
	// DefaultScrubBytesPerSecond reads 80 TiB in a month.
	DefaultScrubBytesPerSecond = 32 << 20
	// DefaultCleanBytesPerSecond bounds background cleaning.
	DefaultCleanBytesPerSecond = 64 << 20
)

// Options configure a Store.
type Options struct {
	// Dir is the store's directory; it is created if it does not exist.
	Dir string
	Log *logrus.Entry
	// CapacityBytes bounds the live data, and what the store takes on the disk
	// within 2 % or 256 MiB, whichever is more; 0 leaves it to the file system.
	CapacityBytes int64
	// CacheBytes bounds the memory for metadata: the caches of maps and of the
	// extent table, what is changed in them and not stored yet, the fingerprint
	// index and the rows read last; 0 means DefaultCacheBytes.
	CacheBytes int64
	// DedupUnit is the largest extent in bytes, a power of two from 4096 to
	// 65536; 0 means DefaultDedupUnit. An existing store keeps its own.
	DedupUnit int

	// StoreDuplicates turns deduplication off: new data is stored without being
	// hashed or looked up. Copies share their extents all the same.
	StoreDuplicates bool
	// CleanBytesPerSecond bounds the data that background cleaning moves; 0
	// means DefaultCleanBytesPerSecond.
	CleanBytesPerSecond int64

	// ScrubEvery is how often the store scrubs itself in the background, reading at
	// most ScrubBytesPerSecond; 0: never. 0 bytes a second means
	// DefaultScrubBytesPerSecond.
	ScrubEvery          time.Duration
	ScrubBytesPerSecond int64

	// MetadataCopies is how often each file of metadata is kept, 1 or 2; 0 means
	// 2: any one of them can be damaged or lost.
	MetadataCopies int
	// ReadOnly opens the store without making, changing or removing any file; what
	// would change it is ErrStoreReadOnly. A store of an older format can be opened
	// so.
	ReadOnly bool

	// Engine has the rows of metadata of a new store; nil means meta.Tables, which is for
	// files of this machine. A store that exists has the engine that it was made with, which
	// is this one or meta.Tables.
	Engine meta.Engine
	// FingerprintKey is the key of the fingerprints of a new store; nil means a random one.
	// Stores of a pool that share it, and the dedup unit, find equal data of each other. An
	// existing store keeps its own.
	FingerprintKey *[32]byte
	// Siblings reaches the other stores of the pool; nil: no extents are lent or adopted.
	Siblings Siblings
	// Owner is a claim of the store that was made before. Open takes it over: Close
	// releases it, and so does an Open that fails. Other functions refuse it, and make a
	// claim, as Open does where it is nil.
	Owner *owner.Owner
	// FS is the file system; nil means that of the operating system.
	FS vfs.FS
	// Shared: the next process that opens the store may be on another machine. What the
	// kernel of this one has been given is not there, so that WriteOut waits until changes
	// are durable.
	Shared bool
	// rebuilding, with a path, is a store that Repair makes: its segments are there,
	// and it removes none.
	rebuilding string
	tuning     tuning
}

const (
	// gatherBytes is the longest piece of new data that waits for WriteOut in
	// memory: there, one system call takes many.
	gatherBytes = 32 << 10
	// writeBackBytes of unsynced data start a commit in the background, and four
	// times as much makes changes wait for one (see throttle): after a crash, opening the
	// store reads what was not synced.
	writeBackBytes = 32 << 20
	// defaultSpareTime is longer than it takes from one checkpoint to the next under
	// load.
	defaultSpareTime = 10 * time.Second
)

// tuning has what tests set to other values than a store in service has: sizes, so that
// little data reaches a bound, and what takes the place of a part. A zero is the value in
// service.
type tuning struct {
	// openOld opens the metadata of a store of format 2, for tests that have it
	// elsewhere; nil means that of Badger.
	openOld func(dir string, log *logrus.Entry) (oldRows, error)
	// viewed wraps what a checkpoint is read through.
	viewed func(meta.Reader) meta.Reader
	// mergeFloor is what it is in meta.Options.
	mergeFloor int64
	// writeBackBytes is how much data may be unsynced before a commit in the
	// background.
	writeBackBytes int64
	// segmentBlocks is the size of a segment; 0 means that of package segment.
	segmentBlocks uint32
	// reserveBytes is the length of the files of the reserve and of the journal; 0
	// means what the file system has room for.
	reserveBytes int64
	// slackBytes is how much the store may take beyond its capacity; 0 means what
	// CapacityBytes says.
	slackBytes int64
	// leastNames is how many names of blocks in other stores are kept at least.
	leastNames int64
	// bringHomeAfter is how long what was adopted is left where it is.
	bringHomeAfter time.Duration
	// spareTime is how long the file of a segment waits to be used again.
	spareTime time.Duration
}

// setDefaults gives what is zero its value in service.
func (t *tuning) setDefaults() {
	t.writeBackBytes = cmp.Or(t.writeBackBytes, writeBackBytes)
	t.leastNames = cmp.Or(t.leastNames, leastNames)
	t.spareTime = cmp.Or(t.spareTime, defaultSpareTime)
	if t.openOld == nil {
		t.openOld = openFormat2
	}
	if t.viewed == nil {
		t.viewed = func(r meta.Reader) meta.Reader { return r }
	}
}

// segmentPath returns the directory of the segments.
func (o *Options) segmentPath() string {
	if o.rebuilding != "" {
		return o.rebuilding
	}
	return filepath.Join(o.Dir, layout.SegmentDir)
}

func (o *Options) setDefaults() error {
	if o.Dir == "" {
		return fmt.Errorf("%w: store without a directory", ErrInvalid)
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.DedupUnit == 0 {
		o.DedupUnit = DefaultDedupUnit
	}
	if o.DedupUnit%BlockLength != 0 || !extent.ValidUnit(o.DedupUnit/BlockLength) {
		return fmt.Errorf("%w: dedup unit of %d bytes; use 4096, 8192, 16384, 32768 or 65536", ErrInvalid, o.DedupUnit)
	}
	if o.CapacityBytes < 0 || o.CacheBytes < 0 || o.CleanBytesPerSecond < 0 {
		return fmt.Errorf("%w: negative capacity, cache size or cleaning budget", ErrInvalid)
	}
	if o.CleanBytesPerSecond == 0 {
		o.CleanBytesPerSecond = DefaultCleanBytesPerSecond
	}
	if o.ScrubBytesPerSecond == 0 {
		o.ScrubBytesPerSecond = DefaultScrubBytesPerSecond
	}
	if o.ScrubEvery < 0 || o.ScrubBytesPerSecond < 0 {
		return fmt.Errorf("%w: scrub every %v with %d bytes a second", ErrInvalid, o.ScrubEvery, o.ScrubBytesPerSecond)
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.ReadOnly {
		o.FS = vfs.Overlay(o.FS)
	}
	if o.Engine == nil {
		o.Engine = meta.Tables()
	}
	o.tuning.setDefaults()
	if o.MetadataCopies == 0 {
		o.MetadataCopies = meta.DefaultCopies
	}
	if o.MetadataCopies < 0 || o.MetadataCopies > 2 {
		return fmt.Errorf("%w: %d copies of metadata; use 1 or 2", ErrInvalid, o.MetadataCopies)
	}
	return nil
}

// dir returns the directory of the store.
func (o *Options) dir() layout.Directory { return layout.Directory{FS: o.FS, Path: o.Dir} }

// segmentFile returns the name of the file of a segment.
func (o *Options) segmentFile(id segment.ID) string {
	return filepath.Join(o.segmentPath(), fmt.Sprintf("%08x.seg", uint32(id)))
}
