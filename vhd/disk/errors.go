package disk

import "errors"

// ErrFormat: the file is not a valid virtual disk.
var ErrFormat = errors.New("not a valid virtual disk")
