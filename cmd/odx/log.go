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
	level, formatter, err := logSettings(c, w)
	if err != nil {
		return nil, err
	}
	log := logrus.New()
	log.SetOutput(w)
	log.SetLevel(level)
	log.SetFormatter(formatter)
	return logrus.NewEntry(log), nil
}

// logSettings returns the level and the format of a configuration, for a log that is
// written to w.
func logSettings(c conf.Log, w io.Writer) (logrus.Level, logrus.Formatter, error) {
	level, err := logrus.ParseLevel(c.Level)
	if err != nil {
		return 0, nil, err
	}
	var format logrus.Formatter = &logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000Z07:00"}
	if c.Format == "json" {
		format = &logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano}
	}
	if isJournal(w) {
		format = &journalFormatter{format}
	}
	return level, format, nil
}
