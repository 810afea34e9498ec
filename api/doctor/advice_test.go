package doctor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"odx/initiator"
)

func TestAdviceFor(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&initiator.SenseError{Key: 5, ASC: 0x2302}, "another server"},
		{fmt.Errorf("write: %w", &initiator.SenseError{Key: 7, ASC: 0x2707}), "full"},
		{&initiator.StatusError{Status: 0x08}, "try again"},
		{&initiator.StatusError{Status: 0x40}, "odx token stats"},
		{&initiator.SenseError{Key: 5, ASC: 0x7F7F}, "odx token stats"},
		{errors.New("something else"), "odx token stats"},
	} {
		if got := adviceFor(tt.err); !strings.Contains(got, tt.want) {
			t.Errorf("%v: %q, want %q in it", tt.err, got, tt.want)
		}
	}
}

func TestInTime(t *testing.T) {
	if err := inTime(time.Now(), nil); err != nil {
		t.Error(err)
	}
	if err := inTime(time.Now().Add(-5*time.Second), nil); err == nil || !strings.Contains(err.Error(), "Windows waits for 4s") {
		t.Errorf("after 5 s: %v", err)
	}
	refused := errors.New("refused")
	if err := inTime(time.Now().Add(-5*time.Second), refused); err != refused {
		t.Errorf("refused after 5 s: %v", err)
	}
}
