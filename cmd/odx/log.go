package main

import (
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"odx/conf"
)

// newLog returns the log that the configuration asks for. Its output is w,
// which is standard error: standard output is for what a script reads.
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
