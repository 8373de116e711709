package local

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlainProgressIsNeverSilentForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := NewProgress(&out, false)
		p.Doing("fetching")
		time.Sleep(20 * time.Second)
		p.Doing("fetching")
		p.Done("fetched")
		p.Close()
		want := "fetching\nfetching (8s)\nfetching (16s)\nfetched\n"
		if out.String() != want {
			t.Errorf("got:\n%swant:\n%s", out.String(), want)
		}
	})
}

func TestLiveProgressIsOneLineThatGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := NewProgress(&out, true)
		p.Doing("first\nline that is %s", strings.Repeat("long ", 50))
		time.Sleep(1300 * time.Millisecond)
		p.Close()
		text := out.String()
		if strings.Contains(text, "\n") {
			t.Errorf("a live line must not break: %q", text)
		}
		if !strings.HasSuffix(text, "\r\x1b[K") {
			t.Errorf("the line stays: %q", text)
		}
		if !strings.Contains(text, "(1s)") {
			t.Errorf("no elapsed time: %q", text)
		}
	})
}
