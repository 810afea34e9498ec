// Package rados keeps the files of a store in objects of a Ceph pool (RADOS).
//
// One object, root, is the directory: its omap has a row for each name, with the number of
// the file (inode). A file is objects of 4 MiB; one that is written in place, such as the
// journal, is a single object. Numbers are never used twice.
//
// Who owns the store has an epoch. The epoch is an attribute of root and of each object that
// is written, and every change compares it in the same operation, which the OSD evaluates
// atomically: a change of the names is refused unless the epoch of root is that of the
// writer, a write if the object has a larger one. Claiming the store raises the epoch of
// root, and opening a file that is written in place raises that of its object before it is
// read. So what an earlier owner still has in flight changes nothing that matters, whatever
// it believes and whenever it arrives; safety needs no clock. Objects of files that are only
// appended to need no such step when they are opened: what a late write leaves there is
// named by nothing durable.
//
// A write that is refused, or whose outcome is not known because it took too long, ends all
// further changes (ErrFenced).
package rados

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"odx/owner"
)

var (
	// ErrFenced: another owner took over, or it is not known whether a change was made.
	ErrFenced = fmt.Errorf("%w: it was fenced off", owner.ErrLost)
	// ErrRefused is of a Pool: a comparison of an operation failed, and it changed nothing.
	ErrRefused = errors.New("a comparison in the operation failed")
	// ErrUnknown is of a Pool: an operation took too long, and was done or not.
	ErrUnknown = errors.New("the outcome of the operation is not known")
	// ErrBusy is of a Pool: the lock is held.
	ErrBusy = errors.New("the lock is held")
)

// Pool is what the files need of RADOS, for the objects of one store. Operations of one Pool
// on one object take effect in the order in which they were begun.
type Pool interface {
	// Begin begins a change of an object. All of it is done, or nothing.
	Begin(object string, c *Change) Pending
	// Read reads from an object; n is less than len(p) where it ends. fs.ErrNotExist if
	// there is no object.
	Read(object string, p []byte, off int64) (n int, err error)
	// Length returns the length of an object, or fs.ErrNotExist.
	Length(object string) (int64, error)
	// Rows returns the omap of an object, and its epoch, as of one moment. fs.ErrNotExist if
	// there is no object.
	Rows(object string) (rows map[string][]byte, epoch uint64, err error)
	// Lock takes a lock on an object, which makes it if needed, for a time, or ErrBusy. With
	// renew it extends the lock, or returns fs.ErrNotExist where it is not held any more.
	Lock(object, cookie string, lease time.Duration, renew bool) error
	// Unlock gives a lock back, if it is held.
	Unlock(object, cookie string) error
	// Break ends the lock of a holder, if it holds it.
	Break(object string, h Holder) error
	// Holder returns who holds the lock on an object; the zero value if nothing does.
	Holder(object string) (Holder, error)
	// Space returns the bytes that are free and that there are in the pool; both are 0 where
	// that is not known.
	Space() (free, total int64, err error)
	// ID is of the cluster and the pool.
	ID() [16]byte
}

// Holder is who holds a lock: its cookie, and the name and the place that the pool knows it by.
type Holder struct{ Cookie, Client, Address string }

// Host returns the name of the machine, "" for the zero value.
func (h Holder) Host() string {
	host, _, _ := strings.Cut(h.Cookie, "/")
	return host
}

// newCookie returns what a claim of a process of this machine takes the lock with.
func newCookie(l Line) string {
	host, err := os.Hostname()
	if err != nil || host == "" || strings.Contains(host, "/") {
		host = "unknown"
	}
	if l != (Line{}) {
		host += "/" + l.String()
	}
	return host + "/" + rand.Text()
}

// Pending is a change that was begun.
type Pending interface {
	// Wait returns nil when the change is durable on all replicas. fs.ErrExist: Create, and
	// the object is there; fs.ErrNotExist: not Create, and it is not; ErrRefused: a
	// comparison failed; ErrUnknown: no answer came in time. It may be called once.
	Wait() error
}

// Change is one operation on one object. Its steps are done in the order of the fields.
type Change struct {
	// Create makes the object, which must not be there; else it must be.
	Create bool
	// Compare is how the epoch of the object is compared with Epoch.
	Compare Compare
	Epoch   uint64
	// SetEpoch, if not 0, becomes the epoch of the object.
	SetEpoch uint64
	// Truncate sets the length to Length.
	Truncate bool
	Length   int64
	// Data is written at Off. It may be changed once Begin has returned.
	Data []byte
	Off  int64
	// Set and Unset change the omap.
	Set   map[string][]byte
	Unset []string
	// Remove removes the object.
	Remove bool
}

// Compare says which epochs of an object let a change happen.
type Compare int

// Comparisons. An object without an epoch has epoch 0.
const (
	Any     Compare = iota
	Equal           // the epoch is that of the change
	NoLater         // it is that of the change, or an earlier one
)

// do makes a change and waits for it.
func do(p Pool, object string, c *Change) error { return p.Begin(object, c).Wait() }

// notThere reports whether an error is that of an object that is not there.
func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }
