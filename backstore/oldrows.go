package backstore

import (
	"github.com/sirupsen/logrus"

	"odx/backstore/meta/format2"
)

// oldRows are the rows of a store of format 2.
type oldRows interface {
	Scan(prefix []byte, fn func(key, value []byte) error) error
	Close() error
}

// openFormat2 opens the metadata of a store on the file system of the operating
// system. Its files stay as they are.
func openFormat2(dir string, log *logrus.Entry) (oldRows, error) {
	return format2.Open(dir, "", log)
}
