package main

import (
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// journalStream names the environment variable by which systemd says that standard output or
// error is connected to the journal: device and inode (systemd.exec(5)).
const journalStream = "JOURNAL_STREAM"

// isJournal reports whether w is connected to the journal.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	stream := os.Getenv(journalStream)
	if !ok || stream == "" {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// journalFormatter puts the priority in front of a line, which the journal takes off
// (sd-daemon(3)). So journalctl -p warning shows warnings and errors.
type journalFormatter struct{ logrus.Formatter }

func (f *journalFormatter) Format(e *logrus.Entry) ([]byte, error) {
	line, err := f.Formatter.Format(e)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "<%d>", priority(e.Level)), line...), nil
}

// priority returns the syslog priority of a level.
func priority(l logrus.Level) int {
	switch l {
	case logrus.PanicLevel, logrus.FatalLevel:
		return 2
	case logrus.ErrorLevel:
		return 3
	case logrus.WarnLevel:
		return 4
	case logrus.InfoLevel:
		return 6
	}
	return 7
}
