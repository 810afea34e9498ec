package owner

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"odx/internal/kit/must"
)

// claimed is a claim of a driver without the goroutine that renews it.
func claimed(t *testing.T, d Driver) *Owner {
	t.Helper()
	o, err := newOwner(t.Context(), d.Claim, sinceBoot)
	must.Succeed(t, err)
	t.Cleanup(func() { _ = o.Release() })
	return o
}

func refused(t *testing.T, d Driver) {
	t.Helper()
	if h, err := d.Claim(t.Context()); !errors.Is(err, ErrHeld) {
		t.Errorf("a second claim: %v, %v, want ErrHeld", h, err)
	}
}

// A lease holds by the owner's clock from the moment on when it was asked for, and what
// came back late extends nothing.
func TestOwner_Lease(t *testing.T) {
	var now atomic.Int64
	clock := func() time.Duration { return time.Duration(now.Load()) }
	m := NewMemory(6, 4*time.Second, time.Second, clock)
	slow := &slowly{Driver: m}
	o, err := newOwner(t.Context(), slow.Claim, clock)
	must.Succeed(t, err)
	if o.Epoch() != 7 {
		t.Errorf("epoch %d after 6", o.Epoch())
	}
	now.Add(int64(2999 * time.Millisecond))
	must.Succeed(t, o.Check())
	slow.answer = func() { now.Add(int64(time.Second)) }
	// It is asked for in time and granted, but who asked Check in between was told otherwise.
	if err := o.renew(t.Context()); !errors.Is(err, ErrLost) || !errors.Is(o.Check(), ErrLost) {
		t.Errorf("a renewal that came late: %v, %v", err, o.Check())
	}
	<-o.Lost()
}

// slowly calls answer before a renewal returns.
type slowly struct {
	Driver
	answer func()
}

type slowHolding struct {
	Holding
	s *slowly
}

func (s *slowly) Claim(ctx context.Context) (Holding, error) {
	h, err := s.Driver.Claim(ctx)
	return slowHolding{h, s}, err
}

func (h slowHolding) Renew(ctx context.Context) error {
	err := h.Holding.Renew(ctx)
	if h.s.answer != nil {
		h.s.answer()
	}
	return err
}

func TestOwner_Revoked(t *testing.T) {
	m := NewMemory(0, 0, 0, sinceBoot)
	o := claimed(t, m)
	m.Revoke()
	must.Succeed(t, m.Admits(o.Epoch())) // there was no other claim
	next := claimed(t, m)
	if err := m.Admits(o.Epoch()); !errors.Is(err, ErrLost) {
		t.Errorf("a write of the old owner: %v", err)
	}
	if err := o.renew(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("its renewal: %v", err)
	}
	must.Succeed(t, o.Release())
	must.Succeed(t, errors.Join(m.Admits(next.Epoch()), next.renew(t.Context())))
}

// Whatever becomes of the lock file, there is one owner.
func TestDirectory_LockFile(t *testing.T) {
	for name, change := range map[string]func(name string) error{
		"removed": os.Remove,
		"replaced": func(name string) error {
			return errors.Join(os.WriteFile(name+"2", nil, 0o600), os.Rename(name+"2", name))
		},
		"moved away": func(name string) error { return os.Rename(name, name+"2") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o, lock := claimed(t, Directory(dir)), filepath.Join(dir, LockName)
			must.Succeed(t, change(lock))
			refused(t, Directory(dir))
			refused(t, ReadDirectory(dir))
			must.Succeed(t, o.renew(t.Context()))
			f, err := os.Open(lock)
			must.Succeed(t, err)
			defer f.Close()
			if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
				t.Errorf("an older odx locks the file: %v", err)
			}
			must.Succeed(t, o.Release())
			if next := claimed(t, Directory(dir)); next.Epoch() != 2 {
				t.Errorf("epoch %d, want 2", next.Epoch())
			}
		})
	}
}

// An older version of odx locks the file alone.
func TestDirectory_OlderOwner(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, LockName)
	older := func() *os.File {
		f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
		must.Succeed(t, errors.Join(err, flock(f, unix.LOCK_EX|unix.LOCK_NB)))
		return f
	}
	f := older()
	refused(t, Directory(dir))
	must.Succeed(t, f.Close())

	o := claimed(t, Directory(dir))
	must.Succeed(t, os.Remove(lock))
	defer older().Close()
	if err := o.renew(t.Context()); !errors.Is(err, ErrLost) || !errors.Is(o.Check(), ErrLost) {
		t.Errorf("the file is locked by another: %v, %v", err, o.Check())
	}
}

// Paths lead to the directory that has the name.
func TestDirectory_Replaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	must.Succeed(t, os.Mkdir(dir, 0o700))
	o := claimed(t, Directory(dir))
	must.Succeed(t, os.Rename(dir, dir+"2"))
	refused(t, Directory(dir+"2"))
	must.Succeed(t, os.Mkdir(dir, 0o700))
	if err := o.renew(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("another directory has its name: %v", err)
	}
	claimed(t, Directory(dir))
}

// Where directories have no locks, a lock file that is replaced is a loss.
func TestDirectory_WithoutItsLock(t *testing.T) {
	dir := t.TempDir()
	h, err := Directory(dir).Claim(t.Context())
	must.Succeed(t, err)
	defer h.Release()
	d := h.(*directoryHolding)
	must.Succeed(t, flock(d.dir, unix.LOCK_UN))
	d.dirLocked = false
	must.Succeed(t, d.Renew(t.Context()))
	must.Succeed(t, os.Remove(d.file.Name()))
	if err := d.Renew(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("without its file: %v", err)
	}
}

// Something else that has the name of the lock file keeps out a process that would change
// it, and no other.
func TestDirectory_NoLockFile(t *testing.T) {
	for name, make := range map[string]func(name string) error{
		"directory": func(name string) error { return os.Mkdir(name, 0o700) },
		"pipe":      func(name string) error { return unix.Mkfifo(name, 0o600) },
		"link":      func(name string) error { return os.Symlink(filepath.Join(name, "none"), name) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must.Succeed(t, make(filepath.Join(dir, LockName)))
			if h, err := Directory(dir).Claim(t.Context()); err == nil || errors.Is(err, ErrHeld) {
				t.Errorf("%v, %v, want an error that is no other owner", h, err)
			}
			if name != "link" {
				claimed(t, ReadDirectory(dir))
			}
		})
	}
}

func TestReadDirectory(t *testing.T) {
	dir := t.TempDir()
	reading := claimed(t, ReadDirectory(dir))
	refused(t, Directory(dir))
	must.Succeed(t, reading.Release())
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 0 {
		t.Errorf("%v, %v, want no file", names, err)
	}
	must.Succeed(t, claimed(t, Directory(dir)).Release())
	reading = claimed(t, ReadDirectory(dir))
	if reading.Epoch() != 1 {
		t.Errorf("epoch %d, want that of the last claim", reading.Epoch())
	}
}

// The kernel takes the claim of a process that is killed, and nothing else of it.
func TestDirectory_KilledProcess(t *testing.T) {
	if dir := os.Getenv("ODX_TEST_OWN"); dir != "" {
		if _, err := Claim(context.Background(), Directory(dir)); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("!")
		select {} // until it is killed
	}
	dir := t.TempDir()
	for epoch := uint64(2); epoch < 12; epoch += 2 {
		child := exec.Command(os.Args[0], "-test.run=^TestDirectory_KilledProcess$")
		child.Env = append(os.Environ(), "ODX_TEST_OWN="+dir)
		out, err := child.StdoutPipe()
		must.Succeed(t, errors.Join(err, child.Start()))
		if n, err := out.Read(make([]byte, 1)); n != 1 {
			t.Fatal("no owner:", err)
		}
		refused(t, Directory(dir))
		if epoch%4 == 0 {
			must.Succeed(t, os.Remove(filepath.Join(dir, LockName)))
			refused(t, Directory(dir))
			must.Succeed(t, os.WriteFile(filepath.Join(dir, LockName), make([]byte, epoch-1), 0o600))
		}
		waiting := make(chan *Owner)
		go func() {
			o, err := Wait(t.Context(), Directory(dir))
			if err != nil {
				t.Error(err)
			}
			waiting <- o
		}()
		must.Succeed(t, child.Process.Kill())
		o := <-waiting
		_ = child.Wait() // killed
		if o.Epoch() != epoch {
			t.Errorf("epoch %d, want %d", o.Epoch(), epoch)
		}
		must.Succeed(t, o.Release())
	}
}

// TestOwner_Share: a claim that is passed on holds after its release, also for the process
// that has the files and does not use them; who inherits it has the next epoch.
func TestOwner_Share(t *testing.T) {
	dir := t.TempDir()
	first, err := Claim(t.Context(), Directory(dir))
	must.Succeed(t, err)
	files, err := first.Share()
	must.Succeed(t, err)
	held := func(when string) {
		t.Helper()
		if _, err := Claim(t.Context(), Directory(dir)); !errors.Is(err, ErrHeld) {
			t.Errorf("%s: %v, want %v", when, err, ErrHeld)
		}
	}
	held("while the first owner has it")
	must.Succeed(t, first.Release())
	held("after its release")
	if _, err := first.Share(); !errors.Is(err, ErrLost) {
		t.Errorf("passed on after its release: %v", err)
	}
	second, err := Inherit(t.Context(), dir, files)
	must.Succeed(t, err)
	held("after the inheritance")
	if second.Epoch() != first.Epoch()+1 || second.Check() != nil || first.Check() == nil {
		t.Errorf("epochs %d and %d, %v and %v", first.Epoch(), second.Epoch(), first.Check(), second.Check())
	}
	must.Succeed(t, second.Release())
	if _, err := Inherit(t.Context(), dir, nil); err == nil {
		t.Error("inherited from no files")
	}
}

// TestInherit_LockFile: it does not matter for a claim that is passed on what becomes of the
// lock file, unless another process has it.
func TestInherit_LockFile(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, file string)
		want   error
	}{
		"removed":  {func(t *testing.T, file string) { must.Succeed(t, os.Remove(file)) }, nil},
		"replaced": {func(t *testing.T, file string) { must.Succeed(t, os.Remove(file), os.WriteFile(file, nil, 0o600)) }, nil},
		"of an older version of odx": {func(t *testing.T, file string) {
			must.Succeed(t, os.Remove(file))
			f, err := os.Create(file)
			must.Succeed(t, err)
			t.Cleanup(func() { f.Close() })
			must.Succeed(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		}, ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			first, err := Claim(t.Context(), Directory(dir))
			must.Succeed(t, err)
			files, err := first.Share()
			must.Succeed(t, err, first.Release())
			c.change(t, filepath.Join(dir, LockName))
			second, err := Inherit(t.Context(), dir, files)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil {
				return
			}
			defer second.Release()
			if second.Epoch() != first.Epoch()+1 {
				t.Errorf("epoch %d after %d", second.Epoch(), first.Epoch())
			}
			f, err := os.Open(filepath.Join(dir, LockName))
			must.Succeed(t, err)
			defer f.Close()
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
				t.Errorf("an older version of odx could lock it: %v", err)
			}
			if info, err := f.Stat(); err != nil || uint64(info.Size()) != second.Epoch() {
				t.Errorf("its length is %d, the epoch %d", info.Size(), second.Epoch())
			}
		})
	}
}

// TestOwner_Share_LockFile: a claim that could not be inherited is not passed on, and holds.
func TestOwner_Share_LockFile(t *testing.T) {
	dir := t.TempDir()
	o, err := Claim(t.Context(), Directory(dir))
	must.Succeed(t, err)
	defer o.Release()
	file := filepath.Join(dir, LockName)
	must.Succeed(t, os.Remove(file), os.Mkdir(file, 0o700))
	if _, err := o.Share(); err == nil || errors.Is(err, ErrLost) {
		t.Errorf("with a directory in place of the lock file: %v", err)
	}
	must.Succeed(t, o.Check(), os.Remove(file))
	files, err := o.Share()
	must.Succeed(t, err)
	for _, f := range files {
		must.Succeed(t, f.Close())
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
