package tokenclient

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
)

// TokenLength is the length of a ROD token in bytes.
const TokenLength = 512

// Client is a running client program. It does one thing at a time and is not
// safe for use by several goroutines.
type Client struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	opened int
	broken error // the pipes are out of step: nothing more can be asked
}

// Start compiles the client if need be and starts it. When ctx ends it is
// killed.
func Start(ctx context.Context) (*Client, error) {
	program, err := Build(ctx)
	if err != nil {
		return nil, err
	}
	c := &Client{cmd: exec.CommandContext(ctx, program)}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReaderSize(out, 1<<20)
	return c, c.cmd.Start()
}

// Close logs out of all sessions and ends the program.
func (c *Client) Close() error {
	c.in.Close()
	err := c.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil // a connection had failed, which was reported when it did
	}
	return err
}

// ask sends a line, then the data (if any), concurrently with which the answer may
// come, and returns the answer; data that come before it go to sink.
func (c *Client) ask(line string, data io.Reader, sink io.Writer) (wireAnswer, error) {
	if c.broken != nil {
		return wireAnswer{}, c.broken
	}
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		return wireAnswer{}, c.fail(err)
	}
	if data != nil {
		if _, err := io.Copy(c.in, data); err != nil {
			return wireAnswer{}, c.fail(err)
		}
	}
	for {
		b, err := c.out.ReadSlice('\n')
		if err != nil {
			return wireAnswer{}, c.fail(err)
		}
		w, err := parseLine(b)
		if err != nil || w.Chunk == 0 {
			return w, err
		}
		if _, err := io.CopyN(sink, c.out, int64(w.Chunk)); err != nil {
			return w, c.fail(err)
		}
	}
}

func (c *Client) fail(err error) error {
	c.broken = fmt.Errorf("the libiscsi client: %w %s", err, c.stderr.String())
	return c.broken
}

// Session is a login to one LUN.
type Session struct {
	Blocks      uint64 // capacity
	BlockLength int    // bytes

	client *Client
	name   string
	listID uint32 // last list identifier used
}

// Client returns the client that the session belongs to.
func (s *Session) Client() *Client { return s.client }

// OpenOptions are what a login may choose.
type OpenOptions struct {
	Initiator    string // name; empty: one that all sessions share
	HeaderDigest bool   // ask for CRC32C
}

// Open logs in to the LUN that url names.
func (c *Client) Open(url string, o OpenOptions) (*Session, error) {
	c.opened++
	s := &Session{client: c, name: fmt.Sprintf("s%d", c.opened)}
	line := fmt.Sprintf("open %s %s", s.name, url)
	if o.Initiator != "" {
		line += " initiator=" + o.Initiator
	}
	if o.HeaderDigest {
		line += " digest=1"
	}
	w, err := c.ask(line, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("log in to %s: %w", url, err)
	}
	s.Blocks, s.BlockLength = w.Blocks, w.BlockLength
	return s, nil
}

// Close logs out, if the connection is still there.
func (s *Session) Close() error {
	_, err := s.client.ask("close "+s.name, nil, nil)
	return err
}

func (s *Session) command(verb, format string, args ...any) (Answer, error) {
	w, err := s.client.ask(verb+" "+s.name+" "+fmt.Sprintf(format, args...), nil, nil)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", verb, err)
	}
	return w.answer()
}

// Command sends any CDB, with data for the target or with in bytes expected.
func (s *Session) Command(cdb []byte, out []byte, in int) (Answer, error) {
	line := "cdb=" + hex.EncodeToString(cdb)
	if len(out) > 0 {
		line += " out=" + hex.EncodeToString(out)
	}
	return s.command("scsi", "%s in=%d", line, in)
}

// Wire counts the bytes that the session's TCP connection has carried, headers
// of TCP and IP not counted.
func (s *Session) Wire() (sent, received int64, err error) {
	w, err := s.client.ask("wire "+s.name, nil, nil)
	return w.Sent, w.Received, err
}

// Flush is SYNCHRONIZE CACHE(16) of the whole LUN.
func (s *Session) Flush() (Answer, error) {
	return s.Command(append([]byte{0x91}, make([]byte, 15)...), nil, 0)
}

// Read reads blocks into w, in order, several commands at a time.
func (s *Session) Read(w io.Writer, lba, blocks uint64) (Answer, error) {
	a, err := s.client.ask(fmt.Sprintf("read %s lba=%d blocks=%d", s.name, lba, blocks), nil, w)
	if err != nil {
		return Answer{}, fmt.Errorf("read: %w", err)
	}
	return a.answer()
}

// WriteOptions are what a write may choose.
type WriteOptions struct {
	FUA   bool
	Depth int // commands outstanding; 0: several
	Chunk int // blocks of one command; 0: 256 KiB
}

// Write writes blocks from r, which must have that much, several commands at a
// time.
func (s *Session) Write(r io.Reader, lba, blocks uint64, o WriteOptions) (Answer, error) {
	line := fmt.Sprintf("write %s lba=%d blocks=%d", s.name, lba, blocks)
	if o.FUA {
		line += " fua=1"
	}
	if o.Depth > 0 {
		line += fmt.Sprintf(" depth=%d", o.Depth)
	}
	if o.Chunk > 0 {
		line += fmt.Sprintf(" chunk=%d", o.Chunk)
	}
	a, err := s.client.ask(line, io.LimitReader(r, int64(blocks)*int64(s.BlockLength)), nil)
	if err != nil {
		return Answer{}, fmt.Errorf("write: %w", err)
	}
	return a.answer()
}

// CopyTo copies blocks to another LUN by reading and writing them.
func (s *Session) CopyTo(to *Session, lba, toLBA, blocks uint64) (Answer, error) {
	return s.command("copy", "%s lba=%d to=%d blocks=%d", to.name, lba, toLBA, blocks)
}

// Range is a block device range descriptor.
type Range struct {
	LBA    uint64
	Blocks uint32
}

func join(ranges []Range) string {
	var words []string
	for _, r := range ranges {
		words = append(words, fmt.Sprintf("%d+%d", r.LBA, r.Blocks))
	}
	return strings.Join(words, ",")
}

// PopulateOptions are the fields of POPULATE TOKEN other than its ranges.
type PopulateOptions struct {
	ListID    uint32 // 0: one not used before
	Timeout   uint32 // seconds; 0: the target's default
	RODType   uint32 // 0: RTV is not set
	Immediate bool
}

// PopulateToken sends POPULATE TOKEN.
func (s *Session) PopulateToken(o PopulateOptions, ranges ...Range) (Answer, error) {
	line := fmt.Sprintf("list_id=%d timeout=%d ranges=%s", s.useListID(o.ListID), o.Timeout, join(ranges))
	if o.RODType != 0 {
		line += fmt.Sprintf(" type=%d", o.RODType)
	}
	if o.Immediate {
		line += " immediate=1"
	}
	return s.command("populate", "%s", line)
}

// WriteTokenOptions are the fields of WRITE USING TOKEN other than token and ranges.
type WriteTokenOptions struct {
	ListID    uint32 // 0: one not used before
	Offset    uint64 // into the ROD, blocks of the destination
	Delete    bool
	Immediate bool
}

// WriteUsingToken sends WRITE USING TOKEN.
func (s *Session) WriteUsingToken(token []byte, o WriteTokenOptions, ranges ...Range) (Answer, error) {
	line := fmt.Sprintf("list_id=%d offset=%d ranges=%s token=%s", s.useListID(o.ListID), o.Offset, join(ranges), hex.EncodeToString(token))
	if o.Delete {
		line += " delete=1"
	}
	if o.Immediate {
		line += " immediate=1"
	}
	return s.command("write-token", "%s", line)
}

func (s *Session) useListID(id uint32) uint32 {
	if id != 0 {
		return id
	}
	s.listID++
	return s.listID
}

// TokenInformation sends RECEIVE ROD TOKEN INFORMATION for the last command
// that chose its list identifier itself, and decodes the parameter data.
func (s *Session) TokenInformation() (TokenInformation, Answer, error) {
	return s.TokenInformationOf(s.listID)
}

// TokenInformationOf is TokenInformation for a list identifier.
func (s *Session) TokenInformationOf(listID uint32) (TokenInformation, Answer, error) {
	a, err := s.command("rod-token", "list_id=%d allocation=1024", listID)
	if err != nil || !a.Good() {
		return TokenInformation{}, a, err
	}
	info, err := parseTokenInformation(a.Data)
	return info, a, err
}
