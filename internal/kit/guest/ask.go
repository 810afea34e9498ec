package guest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// questionLimit is how long a connection may take to say what it asks.
const questionLimit = time.Minute

// desk answers what a script asks the host (ask, in functions.sh): a connection
// sends a line and gets "ok" or "error", a space, and the answer.
type desk struct {
	listen net.Listener
	answer func(question string) (string, error)
	ended  chan struct{}
}

func openDesk(answer func(question string) (string, error)) (*desk, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &desk{listen: l, answer: answer, ended: make(chan struct{})}
	go d.serve()
	return d, nil
}

// address is where the guest finds it.
func (d *desk) address() string {
	return fmt.Sprintf("10.0.2.2 %d", d.listen.Addr().(*net.TCPAddr).Port)
}

// serve answers one question after the other until the desk is closed.
func (d *desk) serve() {
	defer close(d.ended)
	for {
		c, err := d.listen.Accept()
		if err != nil {
			return
		}
		c.SetDeadline(time.Now().Add(questionLimit))
		if question, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			c.SetDeadline(time.Time{})
			said, err := d.answer(strings.TrimSpace(question))
			if err != nil {
				io.WriteString(c, "error "+err.Error()+"\n")
			} else {
				io.WriteString(c, "ok "+said+"\n")
			}
		}
		c.Close()
	}
}

func (d *desk) close() {
	d.listen.Close()
	<-d.ended
}
