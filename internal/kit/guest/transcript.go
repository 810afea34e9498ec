package guest

import (
	"bytes"
	"sync"
)

// transcript keeps what a machine says, and hands on its lines.
type transcript struct {
	said func(line string)

	mu   sync.Mutex // guards what follows
	all  bytes.Buffer
	done int // bytes of the lines handed on
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(p)
	for {
		line, _, ok := bytes.Cut(o.all.Bytes()[o.done:], []byte("\n"))
		if !ok {
			return len(p), nil
		}
		o.done += len(line) + 1
		if o.said != nil {
			o.said(string(bytes.TrimSuffix(line, []byte("\r"))))
		}
	}
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}
