package owner

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sharer is a Holding that another process can take over while it holds.
type sharer interface {
	share() ([]*os.File, error)
}

// Share returns files that hold the claim too, after Release and after the end of this
// process: the kernel gives a lock back when the last of them is closed. The process that
// has them takes the claim over with Inherit, so that there is no moment without an owner.
func (o *Owner) Share() ([]*os.File, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	h, ok := o.holding.(sharer)
	if !ok {
		return nil, fmt.Errorf("a claim of a %T cannot be passed on", o.holding)
	}
	return h.share()
}

// Inherit takes over the claim of the store in the directory path that files hold, which
// Share returned and which are the claim's from then on, also after an error. The owner
// before has released it, or has ended.
func Inherit(ctx context.Context, path string, files []*os.File) (*Owner, error) {
	d := directory{path: path, flags: unix.O_RDWR | unix.O_CREAT}
	return start(ctx, d, func(context.Context) (Holding, error) { return d.inherit(files) })
}

// inherit takes the next epoch on files that are locked.
func (d directory) inherit(files []*os.File) (_ Holding, err error) {
	h := &directoryHolding{d: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Release())
		}
	}()
	if len(files) != 2 {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		return nil, errors.Join(err, fmt.Errorf("a claim of a directory has 2 files, not %d", len(files)))
	}
	h.dir, h.file = files[0], files[1]
	if err := h.lockDirectory(unix.LOCK_EX | unix.LOCK_NB); err != nil { // it is locked by this very file
		return nil, err
	}
	if err := flock(h.file, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHeld, err)
	}
	if err := sameFile(h.dir, d.path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	if err := h.count(); err != nil {
		return nil, err
	}
	return h, h.Renew(context.Background()) // the lock file may have been removed or replaced
}

// share implements sharer.
func (h *directoryHolding) share() (files []*os.File, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return nil, errors.New("a claim without a lock file cannot be passed on")
	}
	// The process that inherits the claim has to find the lock file, and to count in it.
	if err := h.compare(); err != nil {
		return nil, err
	}
	if err := h.store(); err != nil {
		return nil, err
	}
	for _, f := range []*os.File{h.dir, h.file} {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, f := range files {
				err = errors.Join(err, f.Close())
			}
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), f.Name()))
	}
	return files, nil
}
