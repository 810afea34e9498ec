package disk

import "errors"

// ErrFormat: the file is not a valid virtual disk.
var ErrFormat = errors.New("not a valid virtual disk")

// ErrReadOnly: the file was opened for reading.
var ErrReadOnly = errors.New("the virtual disk is open for reading only")
