// Package full tests odx on file systems without a free block.
package full
