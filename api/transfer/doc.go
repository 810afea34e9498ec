// Package transfer copies between disks: volumes of the store, LUNs of this or another
// server, files of this machine.
//
// If both disks support tokens, it first copies by token and moves no bytes. If the
// destination does not know the source's tokens or a copy by token fails, it continues
// by reading and writing and reports why. Zeros are unmapped instead of written if the
// destination supports that.
package transfer
