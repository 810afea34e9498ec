package disk

import "errors"

// ErrFormat reports a file that is not a valid virtual disk.
var ErrFormat = errors.New("not a valid virtual disk")
