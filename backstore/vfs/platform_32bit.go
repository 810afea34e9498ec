//go:build 386 || arm || mips || mipsle

package vfs

// The store keeps sizes of files and of its metadata in int. Where that has 32 bits,
// this name, which is declared nowhere, has the compiler say so first.
var _ = odx_needs_a_64_bit_platform
