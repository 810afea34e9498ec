package main

import (
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"odx/conf"
)

// newLog returns a log with the configured level and format. It writes to w, standard
// error: scripts read standard output.
func newLog(c conf.Log, w io.Writer) (*logrus.Entry, error) {
	level, err := logrus.ParseLevel(c.Level)
	if err != nil {
		return nil, err
	}
	log := logrus.New()
	log.SetOutput(w)
	log.SetLevel(level)
	switch c.Format {
	case "json":
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	default:
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	}
	return logrus.NewEntry(log), nil
}
