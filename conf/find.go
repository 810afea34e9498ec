package conf

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Where Find looks.
const (
	// Variable is the environment variable that names the configuration file.
	Variable = "ODX_CONFIG"
	// Here is the configuration file in the working directory, System that of the machine.
	Here   = "odx.yaml"
	System = "/etc/odx/odx.yaml"
)

// Find returns the path of the configuration file: flag if it is not empty, $ODX_CONFIG,
// ./odx.yaml, or /etc/odx/odx.yaml, the first that there is. Where there is none, it
// returns Here.
//
// It is an error if ./odx.yaml is there and a user other than the caller and root could
// have written it or put it there: that user would control what the caller does. It is not
// passed over, because the commands of the caller would then concern another store than
// meant.
func Find(flag string) (path string, err error) {
	return find(cmp.Or(flag, os.Getenv(Variable)), Here, System, caller())
}

// find is Find with the places and the caller.
func find(named, here, system string, who identity) (path string, err error) {
	if named != "" {
		return named, nil
	}
	if _, err := os.Stat(here); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(system); err == nil {
			return system, nil
		}
		return here, nil
	}
	if why := who.distrusts(here); why != "" {
		return "", fmt.Errorf("%s is not used: %s; if you trust it, use --config %s", here, why, here)
	}
	return here, nil
}

// identity is a user, with its private group: the one that has its name. On many systems
// new files may be written by that group, which has no other members.
type identity struct {
	uid   int
	group int // -1 if there is none
}

// caller returns the user of the process.
func caller() identity {
	who := identity{uid: os.Geteuid(), group: -1}
	u, err := user.LookupId(strconv.Itoa(who.uid))
	if err != nil {
		return who
	}
	if g, err := user.LookupGroupId(strconv.Itoa(os.Getegid())); err == nil && g.Name == u.Username {
		who.group = os.Getegid()
	}
	return who
}

// distrusts returns why another user could have written the file at path, or put it there;
// "" if none could. The directory matters, because its owner can replace the file. If path
// is a symbolic link, all directories on the way to the file do; otherwise only the one that
// it is in, since the working directory stays the same if it is moved.
func (who identity) distrusts(path string) string {
	if why := who.distrustsDirectory(filepath.Dir(path)); why != "" {
		return why
	}
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	if why := who.distrustsOwner(info); why != "" {
		return path + " " + why
	}
	if why := who.writable(info); why != "" {
		return path + " " + why
	}
	link, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	if link.Mode()&fs.ModeSymlink == 0 {
		return ""
	}
	return who.distrustsWay(path)
}

// maxLinks bounds the symbolic links on the way to a file.
const maxLinks = 40

// distrustsWay checks every directory and link on the way to the file at path.
func (who identity) distrustsWay(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err.Error()
	}
	dir, rest, links := "/", strings.Split(abs, "/"), 0
	for len(rest) > 0 {
		if why := who.distrustsDirectory(dir); why != "" {
			return why
		}
		next := filepath.Join(dir, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return err.Error()
		}
		switch {
		case info.Mode()&fs.ModeSymlink == 0:
			dir = next
			continue
		case links == maxLinks:
			return "too many symbolic links"
		}
		links++
		if why := who.distrustsOwner(info); why != "" {
			return "the link " + next + " " + why
		}
		to, err := os.Readlink(next)
		if err != nil {
			return err.Error()
		}
		if filepath.IsAbs(to) {
			dir = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return ""
}

// distrustsDirectory checks a directory. In one with the sticky bit, such as /tmp, only the
// owner of a file can replace it.
func (who identity) distrustsDirectory(dir string) string {
	info, err := os.Stat(dir)
	if err != nil {
		return err.Error()
	}
	if why := who.distrustsOwner(info); why != "" {
		return "the directory " + dir + " " + why
	}
	if why := who.writable(info); why != "" && info.Mode()&fs.ModeSticky == 0 {
		return "the directory " + dir + " " + why
	}
	return ""
}

// distrustsOwner returns who owns a file, if it is another user than the caller and root.
func (who identity) distrustsOwner(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == who.uid || st.Uid == 0 {
		return ""
	}
	return "belongs to user " + userName(int(st.Uid))
}

// writable returns who may write to a file in addition to its owner.
func (who identity) writable(info fs.FileInfo) string {
	mode := info.Mode().Perm()
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case mode&0o002 != 0:
		return fmt.Sprintf("is world-writable (mode %#o)", mode)
	case mode&0o020 != 0 && ok && int(st.Gid) != who.group && st.Gid != 0:
		return fmt.Sprintf("is group-writable (mode %#o)", mode)
	}
	return ""
}
