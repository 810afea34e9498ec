package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// thirdPartyCopy is the CDB of a copy with a parameter list: EXTENDED COPY(LID1) for
// action 00h, POPULATE TOKEN for 10h.
func thirdPartyCopy(action byte, listID uint32, length int) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x83, action
	if action != 0 {
		binary.BigEndian.PutUint32(cdb[6:], listID)
	}
	binary.BigEndian.PutUint32(cdb[10:], uint32(length))
	return cdb
}

// extendedCopyList copies 16 MiB within a logical unit (SPC-4 r37 6.4.3, 6.4.6.2): without
// a list identifier, from and to CSCD FFFFh.
func extendedCopyList() []byte {
	const header, segment = 16, 28
	list := make([]byte, header+segment)
	list[1] = 0x18 // LIST ID USAGE 11b
	binary.BigEndian.PutUint32(list[8:], segment)
	s := list[header:]
	s[0], s[3] = 0x02, segment-4
	copy(s[4:8], []byte{0xff, 0xff, 0xff, 0xff})
	binary.BigEndian.PutUint16(s[10:], hogTransfer/512)
	binary.BigEndian.PutUint64(s[20:], hogTransfer/512) // destination
	return list
}

// populateList is the parameter list of a POPULATE TOKEN of 16 MiB (SBC-3 5.7).
func populateList() []byte {
	list := make([]byte, 32)
	binary.BigEndian.PutUint16(list, 30)
	binary.BigEndian.PutUint16(list[14:], 16)
	binary.BigEndian.PutUint32(list[24:], hogTransfer/512)
	return list
}

// floodDiscovery asks for all targets, from many sessions, and reads no answer.
func floodDiscovery(t *testing.T, s *server, n int) {
	for k := range n {
		h := dialHog(t, s.portal, "127.0.0.1")
		h.logIn(t, 100+k, "SessionType=Discovery\x00")
		for range 2000 {
			h.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			if h.request(0x04, 0x80, 0xffffffff, nil, []byte("SendTargets=All\x00")) != nil {
				break
			}
		}
	}
}

// openLogins connects often, and sends as much of a login as it may without an end.
func openLogins(t *testing.T, s *server, n int) {
	unknown := ""
	for k := 0; len(unknown) < 8000; k++ {
		unknown += fmt.Sprintf("X-odx.example.%d=%s\x00", k, strings.Repeat("x", 40))
	}
	for k := range 5 * n {
		h := dialHog(t, s.portal, "127.0.0.2")
		if k%2 == 0 {
			continue
		}
		h.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := h.Write(h.loginPDU(0x44, unknown)); err != nil { // C: the text goes on
			continue
		}
	}
}

// floodAPI writes and reads in parallel.
func floodAPI(t *testing.T, s *server, n int) {
	dir := filepath.Dir(s.cmd.Args[len(s.cmd.Args)-1])
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "data", "odx.sock"))
	}}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ask := func(method, url string, body io.Reader, length int64) (int, error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://odx"+url, body)
		if err != nil {
			return 0, err
		}
		req.ContentLength = length
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	const length = 4 << 20
	data := bytes.Repeat([]byte("api!"), length/4)
	var all sync.WaitGroup
	for k := range n {
		all.Go(func() {
			for range 4 {
				if status, err := ask("PUT", "/v1/volumes/src/data?offset=33554432", bytes.NewReader(data), length); err != nil || status != http.StatusNoContent {
					t.Errorf("request %d: %d, %v", k, status, err)
				}
			}
		})
		all.Go(func() {
			url := fmt.Sprintf("/v1/volumes/src/data?offset=0&length=%d", length)
			if status, err := ask("GET", url, nil, 0); err != nil || status != http.StatusOK {
				t.Errorf("request %d: %d, %v", k, status, err)
			}
		})
	}
	all.Wait()
}
