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
// 127.0.0.1:3260, the store beside the file. A file that is already there is
// left alone; written says whether there was none.
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
