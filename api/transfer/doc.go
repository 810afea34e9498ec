// Package transfer copies one disk to another, wherever they are: a volume of
// the store, a LUN of this or another server, a file of this machine.
//
// Where both ends take tokens it copies by token first, and moves no bytes; when
// the far end does not know the near end's tokens, or gives up on the way, it
// goes on by reading and writing, and says so. Zeros are not written but made,
// where the destination can make them.
package transfer
