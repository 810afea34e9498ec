package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "odx.yaml")
	link := filepath.Join(dir, "link")
	for _, err := range []error{os.WriteFile(path, []byte("one"), 0o600), os.Chmod(path, 0o640), os.Symlink("odx.yaml", link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// What a process that was killed has left.
	if err := os.WriteFile(filepath.Join(dir, ".odx.yaml.new"), []byte("half"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := Replace(link, []byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		text, err := os.ReadFile(path)
		info, statErr := os.Lstat(path)
		if err != nil || statErr != nil || string(text) != want || info.Mode() != 0o640 {
			t.Errorf("%q with mode %v (%v, %v), want %q", text, info.Mode(), err, statErr, want)
		}
		if to, err := os.Readlink(link); err != nil || to != "odx.yaml" {
			t.Errorf("the link points at %q (%v)", to, err)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
			t.Errorf("the directory has %v (%v)", list, err)
		}
	}
	check("two")
	if err := Replace(path, []byte("one"), []byte("three")); !errors.Is(err, ErrChanged) {
		t.Errorf("based on an older text: %v", err)
	}
	check("two")
	if err := Replace(filepath.Join(dir, "none"), nil, []byte("three")); !errors.Is(err, ErrChanged) {
		t.Errorf("a file that is gone: %v", err)
	}
	if err := Replace("/dev/null", nil, []byte("three")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a device: %v", err)
	}
	check("two")
}

// A secret that is new in a file that all users can read is refused.
func TestReplace_Exposed(t *testing.T) {
	for key, with := range map[string]string{
		"discovery.authentication.users[0].secret": "discovery: {authentication: {users: [{name: u, secret: 'what must not be seen'}]}}\n",
		"api.secret":       "api: {listen: '127.0.0.1:1', secret: 'what must not be seen'}\n",
		"alerts[0].secret": "alerts: [{name: a, url: 'http://a.example', secret: 'what must not be seen'}]\n",
	} {
		t.Run(key, func(t *testing.T) { testReplaceExposed(t, key, minimal, minimal+with) })
	}
}

func testReplaceExposed(t *testing.T, key, without, with string) {
	path := filepath.Join(t.TempDir(), "odx.yaml")
	if err := errors.Join(os.WriteFile(path, []byte(without), 0o600), os.Chmod(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	err := Replace(path, []byte(without), []byte(with))
	var problem Problem
	if !errors.As(err, &problem) || problem.Key != key || strings.Contains(err.Error(), "seen") {
		t.Errorf("error %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte(without), []byte(with)); err != nil {
		t.Error(err)
	}
	// What is there already stays possible.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte(with), []byte(with+"# more\n")); err != nil {
		t.Error(err)
	}
}

// reachable returns a temporary directory that all users can reach.
func reachable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asNobody calls do with the rights of a user that owns nothing. What do does with files
// has to be done in its goroutine.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		do() // the tests take away the rights of the user itself
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, id := range []int{nobody, 0} {
		if err := errors.Join(unix.Setfsgid(id), unix.Setfsuid(id)); err != nil {
			t.Fatal(err)
		}
		if id != 0 {
			do()
		}
	}
}

// Without the right to replace the file, nothing changes.
func TestReplace_NoPermission(t *testing.T) {
	dir := filepath.Join(reachable(t), "etc")
	path := filepath.Join(dir, "odx.yaml")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("one"), 0o644), os.Chmod(dir, 0o555)); err != nil {
		t.Fatal(err)
	}
	var err error
	asNobody(t, func() { err = Replace(path, []byte("one"), []byte("two")) })
	if !errors.Is(err, ErrReadOnly) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	checkOnly(t, path, "one")
}

// checkOnly checks that a file has the given text, and is alone in its directory.
func checkOnly(t *testing.T, path, want string) {
	t.Helper()
	text, err := os.ReadFile(path)
	list, listErr := os.ReadDir(filepath.Dir(path))
	if err != nil || listErr != nil || string(text) != want || len(list) != 1 {
		t.Errorf("%q in %v (%v, %v), want %q alone", text, list, err, listErr, want)
	}
}

// The file keeps its owner; where that is not possible, nothing changes.
func TestReplace_Owner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can give files to others")
	}
	dir := filepath.Join(reachable(t), "etc")
	path := filepath.Join(dir, "odx.yaml")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("one"), 0o644), os.Chown(path, 1234, 4321)); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	checkOnly(t, path, "two")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 4321 {
		t.Errorf("it belongs to %d:%d", st.Uid, st.Gid)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() { err = Replace(path, []byte("two"), []byte("three")) })
	if !errors.Is(err, ErrReadOnly) {
		t.Errorf("error %v", err)
	}
	checkOnly(t, path, "two")
}

// childVariable makes the test binary replace a file.
const childVariable = "ODX_TEST_REPLACE"

// TestReplace_Child is not a test: the other tests start it. It replaces a file once, and
// prints what Replace returns, or again and again.
func TestReplace_Child(t *testing.T) {
	path, again := strings.CutPrefix(os.Getenv(childVariable), "again:")
	if path == "" {
		return
	}
	if !again {
		err := Replace(path, []byte("one"), []byte("two"))
		fmt.Printf("read-only %t: %v\n", errors.Is(err, ErrReadOnly), err)
		return
	}
	texts := [2][]byte{[]byte(strings.Repeat("a", 1<<16)), []byte(strings.Repeat("b", 1<<16))}
	for i := 0; ; i++ {
		text, err := os.ReadFile(path)
		if err == nil {
			err = Replace(path, text, texts[i%2])
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		if i == 0 {
			fmt.Println("begun")
		}
	}
}

// child returns the command for TestReplace_Child, within a command prefix.
func child(argument string, prefix ...string) *exec.Cmd {
	args := append(prefix, os.Args[0], "-test.run=^TestReplace_Child$")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childVariable+"="+argument)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// A file on a read-only file system, and one that is a mount point, as in a container.
func TestReplace_Mounts(t *testing.T) {
	for name, script := range map[string]string{
		"read-only file system": `mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift 2 && exec "$@"`,
		"mount point":           `mount --bind "$2" "$2" && shift 2 && exec "$@"`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "odx.yaml")
			if err := os.WriteFile(path, []byte("one"), 0o644); err != nil {
				t.Fatal(err)
			}
			unshare := []string{"unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", filepath.Dir(path), path}
			if out, err := exec.Command(unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "NOT TESTED: %s: unshare: %v: %s\n", t.Name(), err, out)
				t.Skipf("NOT TESTED: unshare: %v: %s", err, out)
			}
			out, err := child(path, unshare...).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "read-only true: ") {
				t.Errorf("%v: %s", err, out)
			}
			checkOnly(t, path, "one")
		})
	}
}

// A process that is killed while it replaces the file leaves the one text or the other, and
// does not keep the next one from replacing it.
func TestReplace_Killed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odx.yaml")
	if err := os.WriteFile(path, []byte("begin"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		cmd := child("again:" + path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun := make([]byte, len("begun"))
		if _, err := out.Read(begun); err != nil || string(begun) != "begun" {
			t.Errorf("the child says %q (%v)", begun, err)
		}
		kill := time.NewTimer(time.Duration(i) * time.Millisecond) // at another point each time
		<-kill.C
		cmd.Process.Kill()
		cmd.Wait()
		text, err := os.ReadFile(path)
		if err != nil || len(text) != 1<<16 || strings.Trim(string(text), string(text[0])) != "" {
			t.Fatalf("%d bytes (%v)", len(text), err)
		}
		if err := Replace(path, text, []byte("begin")); err != nil {
			t.Fatal(err)
		}
		checkOnly(t, path, "begin")
	}
}
