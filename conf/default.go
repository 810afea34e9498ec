package conf

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

//go:embed default.yaml
var defaultFile []byte

// WriteDefault writes the default configuration to path: two thin disks on
// 127.0.0.1:3260, with the store in the same directory. It does not overwrite an
// existing file; written reports whether it created one.
func WriteDefault(path string) (written bool, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write the default configuration: %w", err)
	}
	_, err = f.Write(defaultFile)
	if err = errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("write the default configuration %s: %w", path, err)
	}
	return true, nil
}
