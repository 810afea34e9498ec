package format2

import (
	"io"
	"strings"

	"github.com/sirupsen/logrus"
)

// logger forwards Badger's log. Badger's level info is logged as debug: it is only
// useful to debug Badger.
type logger struct{ log *logrus.Entry }

func newLogger(log *logrus.Entry) logger {
	if log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		log = logrus.NewEntry(silent)
	}
	return logger{log.WithField("engine", "badger")}
}

func (l logger) Errorf(format string, args ...interface{})   { l.log.Warnf(line(format), args...) }
func (l logger) Warningf(format string, args ...interface{}) { l.log.Warnf(line(format), args...) }
func (l logger) Infof(format string, args ...interface{})    { l.log.Debugf(line(format), args...) }
func (l logger) Debugf(format string, args ...interface{})   { l.log.Debugf(line(format), args...) }

// line drops the line ends that some of Badger's formats have.
func line(format string) string { return strings.TrimRight(format, "\n") }
