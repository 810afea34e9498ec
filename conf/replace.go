package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of Replace.
var (
	// ErrReadOnly: the file cannot be replaced. It is on a read-only file system, is a mount
	// point, or its directory may not be written to.
	ErrReadOnly = errors.New("configuration is read-only")
	// ErrChanged: the file is not what the change was based on.
	ErrChanged = errors.New("configuration has changed in the meantime")
)

// Replace makes text the contents of the configuration file at path, which has to be before
// now. After a crash the file is the one or the other. It keeps its owner and its mode; a
// symbolic link keeps pointing at it. When Replace returns nil, text is durable.
//
// Errors wrap ErrReadOnly or ErrChanged, are a Problem if text has a new secret that all users
// could read, or are those of the operating system. In each case
// but one nothing has changed: if the directory cannot be synced, the error says that the
// change may not survive a power failure.
func Replace(path string, before, text []byte) error {
	if err := replace(path, before, text); err != nil {
		if problem, ok := errors.AsType[Problem](err); ok {
			return problem
		}
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

func replace(path string, before, text []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return changedIfMissing(err)
	}
	old, info, err := open(real)
	if err != nil {
		return changedIfMissing(err)
	}
	defer old.Close()
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrReadOnly)
	}
	if err := lockFor(old, real, info); err != nil {
		return err
	}
	current, err := readConfiguration(real)
	if err != nil {
		return changedIfMissing(err)
	}
	if !bytes.Equal(current, before) {
		return ErrChanged
	}
	if err := checkExposed(path, info, before, text); err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(real), "."+filepath.Base(real)+".new")
	if err := writeNext(next, info, text); err != nil {
		return readOnly(err)
	}
	if err := os.Rename(next, real); err != nil {
		return errors.Join(readOnly(err), os.Remove(next))
	}
	if err := syncDirectory(filepath.Dir(real)); err != nil {
		return fmt.Errorf("it has been replaced, but may not survive a power failure: %w", err)
	}
	return nil
}

// checkExposed returns a Problem if all users may read the file, and text has a secret that
// it does not have before.
func checkExposed(path string, info fs.FileInfo, before, text []byte) error {
	if info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	next, err := Parse(path, text)
	if err != nil {
		return nil // text is not a configuration
	}
	known := map[string]string{}
	if old, err := Parse(path, before); err == nil {
		known = old.inlineSecrets()
	}
	for secret, key := range next.inlineSecrets() {
		if _, was := known[secret]; !was {
			return next.Problem(key, "the secret would be in a file that is world-readable (mode %#o); restrict it with chmod o-r, or use secret_file", info.Mode().Perm())
		}
	}
	return nil
}

// inlineSecrets returns the secrets that are in the configuration file, with their keys.
func (c *Config) inlineSecrets() map[string]string {
	found := map[string]string{}
	add := func(s Secret) {
		if s.source == secretInline && s.Key != "" {
			found[s.text] = s.Key
		}
	}
	authentication := func(a *Authentication) {
		for i := range a.Users {
			add(a.Users[i].Secret)
		}
		if a.Mutual != nil {
			add(a.Mutual.Secret)
		}
	}
	authentication(&c.DiscoveryAuthentication)
	for i := range c.Targets {
		authentication(&c.Targets[i].Authentication)
	}
	for _, s := range c.API.Secrets {
		add(s.Secret)
	}
	for _, a := range c.Alerts {
		add(a.Secret)
	}
	return found
}

// lockFor locks the file that is at path, against other calls of Replace, until it is
// closed.
func lockFor(f *os.File, path string, info fs.FileInfo) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w: another process is replacing it", ErrChanged)
		}
		return err
	}
	// It may have been replaced before the lock was there.
	if now, err := os.Stat(path); err != nil || !os.SameFile(info, now) {
		return ErrChanged
	}
	return nil
}

// writeNext creates a durable file at path with the owner and mode of another one.
func writeNext(path string, like fs.FileInfo, text []byte) (err error) {
	if err := removeIfThere(path); err != nil { // of a process that was killed
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := keepOwner(f, like); err != nil {
		return fmt.Errorf("keep its owner: %w", err)
	}
	if err := f.Chmod(like.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)); err != nil {
		return err
	}
	return f.Sync()
}

// keepOwner gives a file the user and the group of another one, if it has others.
func keepOwner(f *os.File, like fs.FileInfo) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	want, ok2 := like.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

// readOnly adds ErrReadOnly to errors that say that the file cannot be replaced.
func readOnly(err error) error {
	for _, cause := range []error{fs.ErrPermission, unix.EROFS, unix.EBUSY, unix.EXDEV, unix.ETXTBSY} {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %w", ErrReadOnly, err)
		}
	}
	return err
}

// changedIfMissing makes the error for a file that is not there ErrChanged.
func changedIfMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
