package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// open opens a file for reading. It does not wait for a writer of a named pipe.
func open(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// readConfiguration reads a configuration: a regular file, or what a program or a user
// writes to a pipe or a terminal, such as /dev/stdin. It returns at most maxFile+1 bytes.
func readConfiguration(path string) ([]byte, error) {
	f, info, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch kind := info.Mode().Type(); {
	case kind == fs.ModeDir:
		return nil, errors.New("is a directory; name the file in it")
	case kind != 0 && kind&(fs.ModeNamedPipe|fs.ModeCharDevice) == 0:
		return nil, errors.New("is neither a regular file nor a pipe")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) == 0 && info.Mode()&fs.ModeNamedPipe != 0 {
		return nil, errors.New("is a pipe that no program writes to")
	}
	return text, err
}

// ReadFile reads a regular file of at most limit bytes that the configuration names.
func ReadFile(path string, limit int64) ([]byte, error) {
	content, _, err := readRegular(path, limit)
	return content, err
}

// ReadPrivateFile is ReadFile for a file that only the server should have access to. A
// world-writable file is an error: any user could replace its content. The warning names
// other access, which is not an error because containers receive such files.
func ReadPrivateFile(path string, limit int64) (content []byte, warning string, err error) {
	content, info, err := readRegular(path, limit)
	if errors.Is(err, fs.ErrPermission) {
		if info, statErr := os.Stat(path); statErr == nil {
			err = fmt.Errorf("%w; the server runs as user %s: %s", err, userName(os.Geteuid()), protect(info, os.Geteuid(), groups()))
		}
	}
	if err != nil {
		return nil, "", err
	}
	mode, hint := info.Mode().Perm(), protect(info, os.Geteuid(), groups())
	switch readable, writable := mode&0o004 != 0, mode&0o020 != 0; {
	case mode&0o002 != 0:
		return nil, "", fmt.Errorf("%s is world-writable (mode %#o); %s", path, mode, hint)
	case readable && writable:
		warning = fmt.Sprintf("%s is world-readable and group-writable (mode %#o); %s", path, mode, hint)
	case readable:
		warning = fmt.Sprintf("%s is world-readable (mode %#o); %s", path, mode, hint)
	case writable:
		warning = fmt.Sprintf("%s is group-writable (mode %#o); %s", path, mode, hint)
	}
	return content, warning, nil
}

func readRegular(path string, limit int64) ([]byte, fs.FileInfo, error) {
	f, info, err := open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(content)) > limit {
		return nil, nil, fmt.Errorf("%s exceeds %d bytes", path, limit)
	}
	return content, info, nil
}
